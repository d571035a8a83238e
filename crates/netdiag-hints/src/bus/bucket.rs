//! A key-value bucket of ours: found, or made.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

use super::connection::Bus;

/// A bucket's size, bytes: some hundred thousand hints.
const LARGEST: i64 = 128 << 20;

/// The bucket of that name, made if there is none, whose values are kept for `kept` (zero: for ever).
pub(crate) async fn open(
    bus: &Bus,
    name: &str,
    what: &str,
    kept: Duration,
) -> Result<Store, async_nats::Error> {
    let context = jetstream::new(bus.client.clone());
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
        max_bytes: LARGEST,
        // A broker that starts anew is told everything within a second.
        storage: StorageType::Memory,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        deny_delete: true,
        ..Config::default()
    };
    context.create_stream(stream).await?;
    Ok(context.get_key_value(name).await?)
}
