//! A Deployment's conditions.
//!
//! In: the conditions that are, the one to set. Out: the conditions that should be. Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(crate) type Conditions = Vec<DeploymentCondition>;

pub(crate) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub(crate) fn get<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_.as_deref() == Some(type_))
}

/// Sets a condition unless the same status and reason stand already; the transition time moves with the status only.
pub(crate) fn set(conditions: &mut Conditions, mut new: DeploymentCondition) {
    let type_ = new.type_.clone().unwrap_or_default();
    if let Some(current) = get(conditions, &type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove(conditions, &type_);
    conditions.push(new);
}

pub(crate) fn remove(conditions: &mut Conditions, type_: &str) {
    conditions.retain(|condition| condition.type_.as_deref() != Some(type_));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        set(&mut conditions, condition("A", "True", "X", "one", at(1)));
        set(&mut conditions, condition("A", "True", "X", "two", at(2)));
        assert_eq!(conditions[0].message.as_deref(), Some("one"), "same status and reason: nothing new");
        set(&mut conditions, condition("A", "True", "Y", "three", at(3)));
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(1))));
        assert_eq!(conditions[0].last_update_time, Some(Time(at(3))));
        set(&mut conditions, condition("A", "False", "Y", "four", at(4)));
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(4))));
        remove(&mut conditions, "A");
        assert!(conditions.is_empty());
    }
}
