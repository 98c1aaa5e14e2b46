//! valkey-py: a fork of redis-py, traced by the same hooks. The conventions know no system of that name, so it stays the
//! one whose protocol is spoken.

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};

use super::redis::{self, Product};
use crate::breaker::Breaker;
use crate::instrumentations::Instrumentation;

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "valkey",
    distribution: "valkey",
    breaker: Breaker::new("valkey"),
    targets: redis::targets!("valkey", "Valkey", Valkey),
};

static SCOPE: Key = Key::new("remora.valkey");
static SPEC: SpanSpec = SpanSpec { name: "redis", kind: SpanKind::Client, scope: &SCOPE };

enum Valkey {}

impl Product for Valkey {
    fn spec() -> &'static SpanSpec {
        &SPEC
    }
}
