//! The control groups of this process and those around it, version 2 or 1.

use std::path::Path;

use super::Host;

/// A group that a controller may limit: its folder, relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) folder: String,
    /// Of version 2, in which all controllers share one tree.
    pub(crate) unified: bool,
}

/// The groups with this controller that this process is in, the innermost first. What lies outside of a container's own view
/// cannot be seen.
pub(crate) fn of_this_process(host: &Host, controller: &str) -> Result<Vec<Group>, String> {
    let text = host.read("proc/self/cgroup")?;
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let unified = controllers.is_empty();
        // The folder of version 1 has the name of all its controllers, and mostly a link for each.
        let mounts = match controllers {
            "" => vec![String::new()],
            _ if !controllers.split(',').any(|other| other == controller) => continue,
            _ if controllers == controller => vec![format!("/{controller}")],
            _ => vec![format!("/{controller}"), format!("/{controllers}")],
        };
        let mount = mounts.iter().find(|mount| host.exists(&format!("sys/fs/cgroup{mount}"))).or(mounts.first());
        let mount = mount.cloned().unwrap_or_default();
        groups.extend(Path::new(path).ancestors().filter_map(Path::to_str).map(|group| {
            let group = group.trim_end_matches('/');
            Group { folder: format!("sys/fs/cgroup{mount}{group}"), unified }
        }));
    }
    Ok(groups)
}
