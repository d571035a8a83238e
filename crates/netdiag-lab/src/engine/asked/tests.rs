//! Requests as clients send them, good and bad.

use axum::body::to_bytes;
use axum::response::IntoResponse;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tokens(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

fn parse(kind: Kind, body: &Value) -> Result<Asked, ApiError> {
    let offer = Offer { model: "demo", answer_tokens: tokens(100), longest: tokens(1000) };
    Asked::parse(kind, body.to_string().as_bytes(), offer, 0)
}

/// A chat request with these members beside the necessary ones, which they replace.
fn chat(members: Value) -> Value {
    let mut body =
        json!({"model": "demo", "messages": [{"role": "user", "content": "Hello there"}]});
    for (name, value) in members.as_object().expect("object") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn what_is_asked_for_is_understood() {
    let check = |members: Value, tokens: u32, finish: Finish| {
        let asked = parse(Kind::Chat, &chat(members.clone())).expect("valid");
        assert_eq!((asked.answer.tokens().get(), asked.finish), (tokens, finish), "{members}");
    };
    check(json!({}), 100, Finish::Stop);
    check(json!({"max_tokens": 7}), 7, Finish::Length);
    check(json!({"max_tokens": 7, "max_completion_tokens": 9}), 9, Finish::Length);
    check(json!({"max_tokens": null}), 100, Finish::Stop);
    check(json!({"max_tokens": 100}), 100, Finish::Stop);
    check(json!({"max_tokens": 1000}), 100, Finish::Stop);
    check(json!({"max_tokens": 1000, "ignore_eos": true}), 1000, Finish::Length);
    check(json!({"temperature": 0.7, "tools": [], "user": "x"}), 100, Finish::Stop);

    let asked = parse(Kind::Chat, &chat(json!({}))).expect("valid");
    assert_eq!((asked.prompt_tokens, asked.stream, asked.include_usage), (2, false, false));
    let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});
    let asked = parse(Kind::Chat, &chat(streamed)).expect("valid");
    assert!(asked.stream && asked.include_usage);
}

#[test]
fn a_seed_chooses_the_answer_and_a_stop_ends_it() {
    let answer = |members: Value| parse(Kind::Chat, &chat(members)).expect("valid").answer;
    assert_eq!(answer(json!({"seed": -3})), answer(json!({"seed": -3})));
    let text = answer(json!({"seed": 5})).text(100);
    let (before, _) = text.split_once(". ").expect("more than a sentence");
    for stop in [json!(". "), json!(["never there", ". "])] {
        let stopped = parse(Kind::Chat, &chat(json!({"seed": 5, "stop": stop}))).expect("valid");
        assert_eq!(stopped.answer.text(100), before);
        assert_eq!(stopped.finish, Finish::Stop);
    }
}

#[test]
fn prompts_of_all_forms_are_counted() {
    let check = |prompt: Value, expected: u32| {
        let body = json!({"model": "demo", "prompt": prompt});
        let asked = parse(Kind::Text, &body).expect("valid");
        assert_eq!(asked.prompt_tokens, expected, "{body}");
    };
    check(json!("one two three"), 3);
    check(json!(["one two three"]), 3);
    check(json!([17, 4, 11, 9]), 4);
    check(json!(""), 0);
    let parts =
        json!([{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {}}]);
    let messages = json!([
        {"role": "system", "content": "Be brief"},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "user", "content": parts},
    ]);
    let asked = parse(Kind::Chat, &chat(json!({"messages": messages}))).expect("valid");
    assert_eq!(asked.prompt_tokens, 4);
}

#[tokio::test]
async fn what_cannot_be_served_is_named() {
    async fn check(kind: Kind, body: Value, status: u16, param: &str, message: &str) {
        let error = parse(kind, &body).expect_err(message).into_response();
        assert_eq!(error.status(), status, "{body}");
        let json = to_bytes(error.into_body(), usize::MAX).await.expect("body");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        let error = &json["error"];
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{json}");
        assert_eq!(error["type"], "invalid_request_error");
        let found = error["message"].as_str().expect("message");
        assert!(found.starts_with(param) && found.contains(message), "{found}");
    }
    let bad = async |members: Value, param: &str, message: &str| {
        check(Kind::Chat, chat(members), 400, param, message).await;
    };
    check(Kind::Chat, json!([]), 400, "", "body: a JSON object is expected").await;
    check(Kind::Chat, json!({"model": "demo"}), 400, "messages", "is required").await;
    // Without a model it is for the only one there is.
    check(Kind::Chat, json!({}), 400, "messages", "is required").await;
    check(Kind::Text, json!({"model": "demo"}), 400, "prompt", "is required").await;
    check(Kind::Chat, json!({"model": "gpt-4"}), 404, "model", "`gpt-4` does not exist").await;
    bad(json!({"model": 4}), "model", "expected a string").await;
    bad(json!({"messages": []}), "messages", "at least one").await;
    bad(json!({"messages": "Hello"}), "messages", "expected a sequence").await;
    bad(
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "king"}]}),
        "messages[1].role",
        "one of system",
    )
    .await;
    bad(json!({"messages": ["Hello"]}), "messages[0].role", "one of system").await;
    bad(json!({"messages": [{"role": "user"}]}), "messages[0].content", "a string or").await;
    bad(json!({"max_tokens": 0}), "max_tokens", "1 to 1000 tokens").await;
    bad(json!({"max_tokens": -1}), "max_tokens", "1 to 1000 tokens").await;
    bad(json!({"max_tokens": 1001}), "max_tokens", "1 to 1000 tokens").await;
    bad(json!({"max_tokens": 2.5}), "max_tokens", "expected i64").await;
    bad(json!({"max_completion_tokens": "9"}), "max_completion_tokens", "expected i64").await;
    bad(json!({"n": 2}), "n", "one answer").await;
    bad(json!({"stream": "yes"}), "stream", "expected a boolean").await;
    bad(json!({"stream_options": {}}), "stream_options", "only for `stream`").await;
    let options = json!({"stream": true, "stream_options": {"include_usage": 1}});
    bad(options, "stream_options.include_usage", "a boolean").await;
    bad(json!({"stop": 3}), "stop", "a string or an array").await;
    bad(json!({"stop": [3]}), "stop", "strings are expected").await;
    bad(json!({"stop": ""}), "stop", "none of them empty").await;
    bad(json!({"stop": ["a", "b", "c", "d", "e"]}), "stop", "at most 4").await;
    bad(json!({"seed": "x"}), "seed", "expected i64").await;
    for prompt in [json!(["a", "b"]), json!([]), json!([1, "a"]), json!({}), json!([-1])] {
        let body = json!({"model": "demo", "prompt": prompt});
        check(Kind::Text, body, 400, "prompt", "is expected").await;
    }
}

proptest! {
    #[test]
    fn no_body_panics(body: Vec<u8>) {
        let offer = Offer { model: "demo", answer_tokens: tokens(100), longest: tokens(1000) };
        let _ = Asked::parse(Kind::Chat, &body, offer, 0);
    }

    #[test]
    fn no_text_panics(content: String, stop: String, seed: i64) {
        let messages = json!([{"role": "user", "content": content}]);
        let body = chat(json!({"messages": messages, "stop": stop, "seed": seed}));
        let _ = parse(Kind::Chat, &body);
    }
}

#[test]
fn an_answer_goes_on_behind_its_own_text() {
    let whole = parse(Kind::Chat, &chat(json!({"seed": 5}))).expect("valid").answer.text(100);
    let begin = parse(Kind::Chat, &chat(json!({"seed": 5, "max_tokens": 40}))).expect("valid");
    let said = begin.answer.text(40);
    let check = |kind: Kind, said: &str, more: Value, tokens: u32, finish: Finish| {
        let mut body = match kind {
            Kind::Chat => chat(json!({
                "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}],
                "continue_final_message": true,
            })),
            Kind::Text => json!({"prompt": format!("Hi. {said}")}),
        };
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let asked = parse(kind, &body).expect("valid");
        assert_eq!((asked.answer.tokens().get(), asked.finish), (tokens, finish), "{more}");
        said.to_owned() + &asked.answer.text(1000)
    };
    for kind in [Kind::Chat, Kind::Text] {
        assert_eq!(check(kind, &said, json!({"seed": 5}), 60, Finish::Stop), whole);
        // It was left out, and is found by what was said.
        assert_eq!(check(kind, &said, json!({}), 60, Finish::Stop), whole);
        let some = check(kind, &said, json!({"seed": 5, "max_tokens": 9}), 9, Finish::Length);
        assert!(whole.starts_with(&some));
        assert_eq!(check(kind, &whole, json!({"seed": 5}), 1, Finish::Stop), whole);
    }
    let refused = |members: Value| {
        let mut body = chat(json!({"continue_final_message": true}));
        for (name, value) in members.as_object().expect("an object") {
            body[name] = value.clone();
        }
        parse(Kind::Chat, &body).expect_err("not to be continued")
    };
    refused(json!({}));
    let own = json!([{"role": "assistant", "content": "a"}]);
    refused(json!({"messages": own, "add_generation_prompt": true}));
}
