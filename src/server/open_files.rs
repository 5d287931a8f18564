//! How many files the process may have open: every connection is one.
//!
//! At the limit the system refuses to accept, to connect to backends and to open logs alike. So the limit is raised as far as
//! it goes, and client connections get three quarters of it: they are shed by the gate's own cap, with a word in the log
//! and the metric, before the system runs out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and says for how many client connections there is room; logs when that is fewer
/// than `wanted`.
pub fn room(wanted: usize) -> usize {
    let files = raise();
    let room = files - files / 4;
    if room < wanted {
        tracing::warn!(
            open_files = files,
            room,
            wanted,
            "fewer connections than `server.limits.connections` fit into the limit of open files"
        );
    }
    room
}

/// The soft limit, once it is as high as this process may set it.
fn raise() -> usize {
    let now = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, highest) {
        Ok(()) => highest.current,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            now.current
        }
    };
    // None is no limit at all.
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_for_what_is_not_a_client() {
        let room = room(0);
        let files = getrlimit(Resource::Nofile)
            .current
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        assert!(room >= files / 2 && room < files, "{room} of {files}");
        assert_eq!(
            getrlimit(Resource::Nofile).current,
            getrlimit(Resource::Nofile).maximum
        );
    }
}
