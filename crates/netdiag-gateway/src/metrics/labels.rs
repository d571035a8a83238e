//! What the gateway's metrics are told apart by.

use netdiag_metrics::{Bound, Label, Labels};
use prometheus_client::encoding::EncodeLabelSet;

use super::MOST_MODELS;

/// What a client asks for, in OpenTelemetry's words.
const OPERATION: Label = Label {
    name: "gen_ai_operation_name",
    values: "`chat`, `text_completion`, `other`",
    bound: Bound::Most(3),
};

/// `other` and none besides those that have a label of their own.
const MODEL: Label = Label {
    name: "gen_ai_request_model",
    values: "models that engines answered for; `other` for those beyond the bound, empty where none was named",
    bound: Bound::Most(MOST_MODELS + 2),
};

/// A code for each `Failure`, and those of streams that failed without one.
const MOST_FAILURES: usize = 64;

/// HTTP's, of three digits: an engine may answer with any of them.
const MOST_STATUSES: usize = 900;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Operation {
    pub(super) gen_ai_operation_name: &'static str,
    pub(super) gen_ai_request_model: String,
}

impl Labels for Operation {
    const LABELS: &'static [Label] = &[OPERATION, MODEL];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) gen_ai_operation_name: &'static str,
    pub(super) gen_ai_request_model: String,
    pub(super) error_type: &'static str,
}

impl Labels for Outcome {
    const LABELS: &'static [Label] = &[
        OPERATION,
        MODEL,
        Label {
            name: "error_type",
            values: "why it failed: the gateway's error codes, `client_gone`; empty if it did not",
            bound: Bound::Most(MOST_FAILURES),
        },
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Answered {
    pub(super) api: &'static str,
    pub(super) status: u16,
}

impl Labels for Answered {
    const LABELS: &'static [Label] = &[
        Label {
            name: "api",
            values: "`chat`, `completions`, `responses`, `messages`, `v1`, `other`",
            bound: Bound::Most(6),
        },
        Label { name: "status", values: "HTTP's status", bound: Bound::Most(MOST_STATUSES) },
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Fate {
    pub(super) fate: &'static str,
}

impl Labels for Fate {
    const LABELS: &'static [Label] = &[Label {
        name: "fate",
        values: "`generated`, `sent`, `acked`, `wasted`",
        bound: Bound::Most(4),
    }];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct CauseLabel {
    pub(super) cause: &'static str,
}

impl Labels for CauseLabel {
    const LABELS: &'static [Label] = &[Label {
        name: "cause",
        values: "`engine`, `path`, `reader`, `pacer`",
        bound: Bound::Most(4),
    }];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Ended {
    pub(super) end: &'static str,
}

impl Labels for Ended {
    const LABELS: &'static [Label] = &[Label {
        name: "end",
        values: "`complete`, `client_gone`, `stopped`, `failed`",
        bound: Bound::Most(4),
    }];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Ordered {
    pub(super) order: &'static str,
    pub(super) outcome: &'static str,
}

impl Labels for Ordered {
    const LABELS: &'static [Label] = &[
        Label { name: "order", values: "`pause`, `resume`, `abort`", bound: Bound::Most(3) },
        Label {
            name: "outcome",
            values: "`done`, `late`, `refused`, `failed`",
            bound: Bound::Most(4),
        },
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Engine {
    pub(super) engine: String,
}

impl Labels for Engine {
    const LABELS: &'static [Label] =
        &[Label { name: "engine", values: "engines' URLs", bound: Bound::Setting("--upstream") }];
}
