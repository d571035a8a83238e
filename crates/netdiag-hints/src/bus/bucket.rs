//! A key-value bucket of ours: found, or made.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};

use super::connection::Bus;

/// Copies in a cluster: one server may be lost. A server alone keeps one, and says so; a cluster that has no room for three right now is
/// asked again another time, since a bucket keeps the copies that it was made with.
const COPIES: [usize; 2] = [3, 1];

/// A bucket to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) name: &'static str,
    /// What it is for, for whoever runs the broker.
    pub(crate) what: &'static str,
    /// For how long values are kept; zero: for ever.
    pub(crate) kept: Duration,
    /// All values together, bytes. The broker sets so much aside.
    pub(crate) size: i64,
}

/// The bucket of that name, made if there is none.
pub(crate) async fn open(
    bus: &Bus,
    Bucket { name, what, kept, size }: Bucket,
) -> Result<Store, async_nats::Error> {
    let context = jetstream::new(bus.asking());
    if let Ok(bucket) = context.get_key_value(name).await {
        return Ok(bucket);
    }
    // The stream that a bucket is (NATS' ADR-8). The library's own way asks for the account's limits first, and cannot read what
    // servers older than 2.10 answer.
    let stream = Config {
        name: format!("KV_{name}"),
        description: Some(what.to_owned()),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_age: kept,
        max_bytes: size,
        // A broker that starts anew is told everything within a second.
        storage: StorageType::Memory,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        deny_delete: true,
        ..Config::default()
    };
    let mut made = Ok(());
    for num_replicas in COPIES {
        let stream = Config { num_replicas, ..stream.clone() };
        made = context.create_stream(stream).await.map(|_| ());
        if !made.as_ref().is_err_and(is_alone) {
            break;
        }
    }
    made?;
    Ok(context.get_key_value(name).await?)
}

/// The server keeps no copies, because it is in no cluster.
fn is_alone(error: &CreateStreamError) -> bool {
    let CreateStreamErrorKind::JetStream(error) = error.kind() else { return false };
    error.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_given_up_only_where_there_is_no_cluster() {
        let refused = |code: u64| {
            let error = format!(r#"{{"code":400,"err_code":{code},"description":"no"}}"#);
            let error: jetstream::Error = serde_json::from_str(&error).expect("an error");
            CreateStreamError::from(error)
        };
        assert!(is_alone(&refused(10074)));
        // No suitable peers, no resources, no streams here.
        for code in [10005, 10023, 10059] {
            assert!(!is_alone(&refused(code)), "{code}");
        }
        assert!(!is_alone(&CreateStreamError::new(CreateStreamErrorKind::TimedOut)));
    }
}
