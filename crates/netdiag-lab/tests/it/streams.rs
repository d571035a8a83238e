//! Engine and client over real sockets: what is generated is delivered, and every token is accounted for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netdiag_lab::client::{Answer, End, Question, Session};
use netdiag_lab::engine::{Allowance, Engine, EngineSpec, Pace, TokenCounts};
use netdiag_telemetry::Tps;
use tokio::net::{TcpListener, TcpStream};

async fn serve(pace: Pace) -> (Engine, SocketAddr) {
    let engine = Engine::start(EngineSpec::default(), pace);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(engine.clone().serve(listener));
    (engine, address)
}

async fn session(address: SocketAddr) -> Session {
    let socket = TcpStream::connect(address).await.expect("connects");
    Session::start(socket, Instant::now()).await.expect("a session")
}

fn question(tokens: u32) -> Question<'static> {
    Question { model: "netdiag-demo", prompt: "Hello", tokens, patience: None, until: None }
}

fn rate(per_second: f64) -> Allowance {
    Allowance { rate: Some(Tps::try_new(per_second).expect("a rate")), hold: false }
}

/// The counts once everything has been acknowledged, or the connection has ended.
async fn settled(engine: &Engine) -> TokenCounts {
    let asked = Instant::now();
    loop {
        let counts = engine.counts();
        assert_eq!(counts.generated, counts.acked + counts.in_flight + counts.wasted, "{counts:?}");
        if counts.in_flight == 0 {
            return counts;
        }
        assert!(asked.elapsed() < Duration::from_secs(20), "{counts:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_generated_is_delivered_and_acknowledged() {
    let (engine, address) = serve(Arc::new(|_| Allowance::FREE)).await;
    let streams: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async move {
                // Two questions over one connection.
                let (first, again) = session(address).await.ask(question(30)).await;
                let (second, _) = again.expect("a whole answer").ask(question(5)).await;
                (first, second)
            })
        })
        .collect();
    for stream in streams {
        let (first, second): (Answer, Answer) = stream.await.expect("a stream");
        assert_eq!((&first.end, &second.end), (&End::Finished, &End::Finished));
        assert_eq!((first.delivered.tokens.len(), second.delivered.tokens.len()), (30, 5));
        assert!(first.delivered.ttft().expect("tokens") >= EngineSpec::default().prefill);
    }
    let counts = settled(&engine).await;
    assert_eq!(counts, TokenCounts { generated: 700, acked: 700, in_flight: 0, wasted: 0 });
    let totals = engine.totals();
    assert_eq!((totals.finished, totals.generated_tokens), (40, 700));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_as_fast_as_it_may_be_and_can_be_held() {
    let held = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&held);
    let pace = move |_| Allowance { hold: hold.load(Ordering::Relaxed), ..rate(20.0) };
    let (engine, address) = serve(Arc::new(pace)).await;
    let asking = tokio::spawn(async move { session(address).await.ask(question(20)).await.0 });
    tokio::time::sleep(Duration::from_millis(500)).await;
    held.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = engine.totals().generated_tokens;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(engine.totals().generated_tokens, before);
    assert!((5..=15).contains(&before), "{before}");
    held.store(false, Ordering::Relaxed);
    let answer = asking.await.expect("an answer");
    assert_eq!((answer.end, answer.delivered.tokens.len()), (End::Finished, 20));
    let gaps: Vec<f64> = answer.delivered.gaps().collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    assert!(longest >= 0.6, "{longest}");
    let median = netdiag_lab::metrics::quantile(gaps, 0.5).expect("gaps");
    assert!((0.03..0.07).contains(&median), "{median}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_leaves_wastes_what_was_under_way() {
    let stalled = Arc::new(AtomicBool::new(false));
    let stall = Arc::clone(&stalled);
    let pace = move |_| Allowance { hold: stall.load(Ordering::Relaxed), ..rate(50.0) };
    let (engine, address) = serve(Arc::new(pace)).await;
    let asking = tokio::spawn(async move {
        let question = Question { patience: Some(Duration::from_millis(400)), ..question(500) };
        session(address).await.ask(question).await
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    stalled.store(true, Ordering::Relaxed);
    let (answer, session) = asking.await.expect("an answer");
    assert!(answer.end == End::Left && session.is_none(), "{:?}", answer.end);
    let last = *answer.delivered.tokens.last().expect("tokens");
    let waited = answer.ended - last;
    assert!(
        (Duration::from_millis(390)..Duration::from_millis(900)).contains(&waited),
        "{waited:?}"
    );
    let counts = settled(&engine).await;
    assert!(counts.acked >= answer.delivered.tokens.len() as u64, "{counts:?}");
    assert_eq!(counts.generated, engine.totals().generated_tokens);
    let until = Instant::now() + Duration::from_secs(5);
    while engine.totals().aborted == 0 {
        assert!(Instant::now() < until, "the engine goes on for nobody");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
