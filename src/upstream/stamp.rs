//! The mark that the gateway leaves on what it makes in the cloud, so that it finds its own again and touches nothing else.

use std::collections::BTreeMap;

use ags_client::types::{MetadataVar, Tag};

use crate::ids::{InstanceId, TeamId, ToolId};

const DEPLOYMENT: &str = "ags-gateway.deployment";
const INSTANCE: &str = "ags-gateway.instance";
const TOOL: &str = "ags-gateway.tool";
const TEAM: &str = "ags-gateway.team";

/// The tags of a tool: the stamp, then the caller's own.
pub(super) fn tool_tags(
    deployment: &str,
    tool: &ToolId,
    team: Option<&TeamId>,
    own: &BTreeMap<String, String>,
) -> Vec<Tag> {
    let team = team.map(TeamId::as_str).unwrap_or_default();
    let stamp = [(DEPLOYMENT, deployment), (TOOL, tool.as_str()), (TEAM, team)];
    let own = own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    stamp.into_iter().chain(own).map(|(key, value)| Tag { key: key.into(), value: value.into() }).collect()
}

/// The metadata of an instance: the stamp, then the caller's own.
#[must_use]
pub fn instance_metadata(
    deployment: &str,
    instance: &InstanceId,
    team: &TeamId,
    own: &BTreeMap<String, String>,
) -> Vec<MetadataVar> {
    let stamp = [(DEPLOYMENT, deployment), (INSTANCE, instance.as_str()), (TEAM, team.as_str())];
    let own = own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    stamp.into_iter().chain(own).map(|(name, value)| MetadataVar { name: name.into(), value: value.into() }).collect()
}

/// The instance that this metadata says it is, if this deployment stamped it.
pub(super) fn stamped_instance(deployment: &str, metadata: &[MetadataVar]) -> Option<InstanceId> {
    let value = |name: &str| metadata.iter().find(|var| var.name == name).map(|var| var.value.as_str());
    (value(DEPLOYMENT) == Some(deployment)).then(|| value(INSTANCE)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{clock, ids::Ids};

    #[test]
    fn only_the_own_stamp_is_read() {
        let ids = Ids::new(Arc::new(clock::System));
        let (instance, team): (InstanceId, TeamId) = (ids.next(), ids.next());
        let own = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let metadata = instance_metadata("us", &instance, &team, &own);
        assert_eq!(metadata.last().map(|var| (var.name.as_str(), var.value.as_str())), Some(("k", "v")));
        assert_eq!(stamped_instance("us", &metadata), Some(instance));
        assert_eq!(stamped_instance("them", &metadata), None);
        assert_eq!(stamped_instance("us", &metadata[1..]), None);
        assert_eq!(stamped_instance("us", &[]), None);
    }

    #[test]
    fn a_tools_tags_carry_the_stamp_and_the_callers_own() {
        let ids = Ids::new(Arc::new(clock::System));
        let (tool, team): (ToolId, TeamId) = (ids.next(), ids.next());
        let own = BTreeMap::from([("cost".to_owned(), "42".to_owned())]);
        let tags = tool_tags("us", &tool, Some(&team), &own);
        let keys: Vec<_> = tags.iter().map(|tag| tag.key.as_str()).collect();
        assert_eq!(keys, [DEPLOYMENT, TOOL, TEAM, "cost"]);
    }
}
