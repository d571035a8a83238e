//! Events as the APIs document them, and what is read in them.

use bytes::Bytes;

use super::*;

fn piece(data: &str) -> Piece {
    Piece { bytes: Bytes::from(format!("data: {data}\n\n")), kind: Kind::Event }
}

fn check(dialect: Dialect, events: &[(&str, u32, Role)], total: u64) {
    let mut reader = TokenReader::new(dialect);
    for (data, tokens, role) in events {
        let reading = reader.read(&piece(data));
        assert_eq!(reading, Reading { tokens: *tokens, role: *role }, "{data}");
    }
    assert_eq!(reader.tokens(), total);
}

#[test]
fn chat() {
    let chat = Dialect::Chat;
    check(
        chat,
        &[
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
                0,
                Role::Other,
            ),
            (
                r#"{"choices":[{"delta":{"content":"Hello"},"finish_reason":null,"logprobs":null}]}"#,
                1,
                Role::Text,
            ),
            (r#"{"choices":[{"delta":{"reasoning_content":"Hm"}}],"usage":null}"#, 1, Role::Text),
            (
                r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"index":0}]}}]}"#,
                1,
                Role::Tool,
            ),
            (
                r#"{"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
                2,
                Role::Text,
            ),
            (
                r#"{"choices":[{"delta":{"content":"abc"},"logprobs":{"content":[{},{},{}]}}]}"#,
                3,
                Role::Text,
            ),
            (r#"{"choices":[{"delta":{"content":"ab"},"token_ids":[1,2]}]}"#, 2, Role::Text),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, 0, Role::Finish),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":11}}"#,
                0,
                Role::Other,
            ),
            ("[DONE]", 0, Role::Done),
        ],
        11,
    );
    check(chat, &[(r#"{"error":{"message":"no"}}"#, 0, Role::Error)], 0);
    check(
        chat,
        &[("nonsense", 0, Role::Other), ("[1]", 0, Role::Other), ("{}", 0, Role::Other)],
        0,
    );
}

#[test]
fn a_running_usage_counts_what_deltas_do_not_tell() {
    check(
        Dialect::Chat,
        &[
            (
                r#"{"choices":[{"delta":{"content":"a b"}}],"usage":{"completion_tokens":2}}"#,
                2,
                Role::Text,
            ),
            (
                r#"{"choices":[{"delta":{"content":"c d e"}}],"usage":{"completion_tokens":5}}"#,
                3,
                Role::Text,
            ),
            (
                r#"{"choices":[{"delta":{"content":"f"}}],"usage":{"completion_tokens":1}}"#,
                1,
                Role::Text,
            ),
        ],
        1,
    );
}

#[test]
fn no_event_has_more_tokens_than_bytes() {
    let mut reader = TokenReader::new(Dialect::Chat);
    for usage in [1 << 40, u64::MAX] {
        let data = format!(
            r#"{{"choices":[{{"delta":{{"content":"a"}}}}],"usage":{{"completion_tokens":{usage}}}}}"#
        );
        let piece = piece(&data);
        assert_eq!(reader.read(&piece).tokens as usize, piece.bytes.len(), "{usage}");
        assert_eq!(reader.tokens(), usage);
    }
    let more = piece(r#"{"choices":[{"delta":{"content":"a"}}]}"#);
    assert_eq!((reader.read(&more).tokens, reader.tokens()), (1, u64::MAX));
}

#[test]
fn completions() {
    check(
        Dialect::Completions,
        &[
            (r#"{"choices":[{"text":"Hello","finish_reason":null}]}"#, 1, Role::Text),
            (r#"{"choices":[{"text":"a b","logprobs":{"tokens":["a"," b"]}}]}"#, 2, Role::Text),
            (r#"{"choices":[{"text":"","finish_reason":"length"}]}"#, 0, Role::Finish),
            (" [DONE] ", 0, Role::Done),
        ],
        3,
    );
}

#[test]
fn messages() {
    check(
        Dialect::Messages,
        &[
            (r#"{"type":"message_start","message":{"usage":{"output_tokens":1}}}"#, 0, Role::Other),
            (
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text"}}"#,
                0,
                Role::Tool,
            ),
            (r#"{"type":"ping"}"#, 0, Role::Other),
            (
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#,
                1,
                Role::Text,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"x"}}"#,
                1,
                Role::Text,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
                1,
                Role::Tool,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":""}}"#,
                0,
                Role::Other,
            ),
            (
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#,
                0,
                Role::Finish,
            ),
            (r#"{"type":"message_stop"}"#, 0, Role::Done),
        ],
        15,
    );
    check(
        Dialect::Messages,
        &[(r#"{"type":"error","error":{"type":"overloaded_error"}}"#, 0, Role::Error)],
        0,
    );
}

#[test]
fn responses() {
    check(
        Dialect::Responses,
        &[
            (r#"{"type":"response.created","response":{"usage":null}}"#, 0, Role::Other),
            (r#"{"type":"response.output_text.delta","delta":"Hi"}"#, 1, Role::Text),
            (r#"{"type":"response.reasoning_text.delta","delta":"x"}"#, 1, Role::Text),
            (r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#, 1, Role::Tool),
            (r#"{"type":"response.output_text.done","text":"Hi"}"#, 0, Role::Finish),
            (
                r#"{"type":"response.completed","response":{"usage":{"output_tokens":9}}}"#,
                0,
                Role::Done,
            ),
        ],
        9,
    );
    check(
        Dialect::Responses,
        &[(r#"{"type":"response.failed","response":{}}"#, 0, Role::Error)],
        0,
    );
}
