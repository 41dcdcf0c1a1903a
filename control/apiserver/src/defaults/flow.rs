//! Defaults of API priority and fairness.
//!
//! In: the fields of an object. Out: the same, filled.

use super::fill::{Fields, empty, ensure, object, text, unset};

pub(super) fn flow_schema(schema: &mut Fields) {
    if let Some(spec) = ensure(schema, "spec") {
        empty(spec, "matchingPrecedence", 1000);
    }
}

pub(super) fn priority_level(level: &mut Fields) {
    let Some(spec) = ensure(level, "spec") else { return };
    if text(spec, "type") == "Exempt"
        && let Some(exempt) = ensure(spec, "exempt")
    {
        unset(exempt, "nominalConcurrencyShares", 0);
        unset(exempt, "lendablePercent", 0);
    }
    let Some(limited) = object(spec, "limited") else { return };
    unset(limited, "nominalConcurrencyShares", 30);
    unset(limited, "lendablePercent", 0);
    let queuing = object(limited, "limitResponse").and_then(|response| object(response, "queuing"));
    if let Some(queuing) = queuing {
        empty(queuing, "handSize", 8);
        empty(queuing, "queues", 64);
        empty(queuing, "queueLengthLimit", 50);
    }
}
