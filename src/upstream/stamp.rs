//! The mark that the gateway leaves on what it makes in the cloud, so that it finds its own again and touches nothing else.

use std::collections::BTreeMap;

use ags_client::types::{MetadataVar, Tag};

use crate::ids::{InstanceId, TeamId, ToolId};

const DEPLOYMENT: &str = "ags-gateway.deployment";
const INSTANCE: &str = "ags-gateway.instance";
const TOOL: &str = "ags-gateway.tool";
const TEAM: &str = "ags-gateway.team";

/// Whether a tag or a piece of metadata is part of a gateway's mark.
pub(super) fn is_stamp(key: &str) -> bool {
    [DEPLOYMENT, TOOL, TEAM].contains(&key)
}

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

/// Whose this metadata says an instance is, if this deployment stamped it.
pub(super) fn stamped_team(deployment: &str, metadata: &[MetadataVar]) -> Option<TeamId> {
    let value = |name: &str| metadata.iter().find(|var| var.name == name).map(|var| var.value.as_str());
    (value(DEPLOYMENT) == Some(deployment)).then(|| value(TEAM)?.parse().ok()).flatten()
}

/// The tool that these tags say it is, and whose, if this deployment stamped it.
pub(super) fn stamped_tool(deployment: &str, tags: &[Tag]) -> Option<(ToolId, Option<TeamId>)> {
    let value = |key: &str| tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str());
    let tool = value(TOOL).filter(|_| value(DEPLOYMENT) == Some(deployment))?;
    Some((tool.parse().ok()?, value(TEAM).and_then(|team| team.parse().ok())))
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
        assert_eq!(stamped_team("us", &metadata), Some(team));
        assert_eq!(stamped_team("them", &metadata), None);
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
        assert_eq!(stamped_tool("us", &tags), Some((tool, Some(team))));
        assert_eq!(stamped_tool("them", &tags), None);
    }
}
