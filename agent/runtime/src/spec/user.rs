//! Who a container runs as.
//!
//! In: `runAsUser` and its kin, the image's `USER`, the image's passwd and group files. Out: uid, gid, groups, or the
//! refusal of `runAsNonRoot` in upstream's words. Pure. A number is never looked up as a name and must fit the kernel's
//! range (CVE-2024-40635).

use crate::image::etc::EtcFiles;
use crate::types::{ContainerConfig, Security};

const MAX_ID: i64 = i32::MAX as i64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// With `gid` among them.
    pub(crate) groups: Vec<u32>,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// # Errors
/// A sentence for the user.
pub(crate) fn resolve(config: &ContainerConfig, etc: &EtcFiles) -> Result<User, String> {
    let security = &config.security;
    let (image_user, image_group) = match config.image.user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (config.image.user.as_str(), ""),
    };
    if security.run_as_non_root {
        verify_non_root(config, image_user)?;
    }
    let entry = match security.run_as_user {
        Some(uid) => by_uid(etc, id(uid, "runAsUser")?),
        None if image_user.is_empty() => by_uid(etc, 0),
        None => match number(image_user)? {
            Some(uid) => by_uid(etc, uid),
            None => by_name(etc, image_user).ok_or_else(|| {
                format!("unable to find user {image_user}: no matching entries in passwd file")
            })?,
        },
    };
    let gid = match security.run_as_group {
        Some(gid) => id(gid, "runAsGroup")?,
        None if security.run_as_user.is_some() || image_group.is_empty() => entry.gid,
        None => match number(image_group)? {
            Some(gid) => gid,
            None => group_by_name(etc, image_group).ok_or_else(|| {
                format!("unable to find group {image_group}: no matching entries in group file")
            })?,
        },
    };
    let mut groups = vec![gid];
    for group in groups_of(etc, entry.name).chain(supplemental(security)?) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(User { uid: entry.uid, gid, groups })
}

fn verify_non_root(config: &ContainerConfig, image_user: &str) -> Result<(), String> {
    let of = format!(
        "(pod: \"{}_{}({})\", container: {})",
        config.pod_name, config.pod_namespace, config.key.pod_uid, config.key.container
    );
    match config.security.run_as_user {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {of}")),
        Some(_) => Ok(()),
        None if image_user.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {of}"))
        }
        None => match number(image_user)? {
            Some(0) => Err(format!("container has runAsNonRoot and image will run as root {of}")),
            Some(_) => Ok(()),
            None => Err(format!(
                "container has runAsNonRoot and image has non-numeric user ({image_user}), \
                 cannot verify user is non-root {of}"
            )),
        },
    }
}

fn supplemental(security: &Security) -> Result<Vec<u32>, String> {
    security.supplemental_groups.iter().map(|gid| id(*gid, "supplementalGroups")).collect()
}

fn id(value: i64, field: &str) -> Result<u32, String> {
    match u32::try_from(value) {
        Ok(id) if value <= MAX_ID => Ok(id),
        _ => Err(format!("{field} {value}: must be between 0 and {MAX_ID}, inclusive")),
    }
}

/// The number that a word of `USER` is; `None` when it is a name.
fn number(word: &str) -> Result<Option<u32>, String> {
    if !word.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let canonical = word == "0" || !word.starts_with('0');
    match word.parse::<i64>() {
        Ok(value) if canonical && value <= MAX_ID => id(value, "user").map(Some),
        _ => Err(format!("the image's user {word:?} is not a number between 0 and {MAX_ID}")),
    }
}

fn passwd(etc: &EtcFiles) -> impl Iterator<Item = PasswdEntry<'_>> {
    etc.passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let usable = !name.is_empty() && i64::from(uid) <= MAX_ID && i64::from(gid) <= MAX_ID;
        usable.then_some(PasswdEntry { name, uid, gid })
    })
}

fn by_uid(etc: &EtcFiles, uid: u32) -> PasswdEntry<'_> {
    passwd(etc).find(|entry| entry.uid == uid).unwrap_or(PasswdEntry { name: "", uid, gid: 0 })
}

fn by_name<'a>(etc: &'a EtcFiles, name: &str) -> Option<PasswdEntry<'a>> {
    passwd(etc).find(|entry| entry.name == name)
}

/// Name, gid and members of each group.
fn groups(etc: &EtcFiles) -> impl Iterator<Item = (&str, u32, &str)> {
    etc.group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid: u32 = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or("");
        (i64::from(gid) <= MAX_ID).then_some((name, gid, members))
    })
}

fn group_by_name(etc: &EtcFiles, name: &str) -> Option<u32> {
    groups(etc).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid)
}

fn groups_of<'a>(etc: &'a EtcFiles, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(etc)
        .filter(move |(.., members)| !user.is_empty() && members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::config;

    fn etc() -> EtcFiles {
        EtcFiles {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:44::/:/bin/false\n\
                     1000000000000:x:0:0::/:/bin/sh\nbig:x:4294967295:0::/:/bin/sh\n"
                .into(),
            group: "root:x:0:\nadm:x:4:root,www\nweb:x:44:\nhuge:x:4294967295:www\nextra:x:55:www\n".into(),
        }
    }

    fn user(image_user: &str, change: impl FnOnce(&mut Security)) -> Result<User, String> {
        let mut config = config();
        config.image.user = image_user.into();
        change(&mut config.security);
        resolve(&config, &etc())
    }

    #[test]
    fn the_image_names_a_user() {
        let www = User { uid: 33, gid: 44, groups: vec![44, 4, 55] };
        assert_eq!(user("www", |_| {}), Ok(www.clone()));
        assert_eq!(user("33", |_| {}), Ok(www));
        assert_eq!(user("www:adm", |_| {}).unwrap().gid, 4);
        assert_eq!(user("1234:77", |_| {}), Ok(User { uid: 1234, gid: 77, groups: vec![77] }));
        assert_eq!(user("1234", |_| {}), Ok(User { uid: 1234, gid: 0, groups: vec![0] }));
        assert_eq!(user("", |_| {}), Ok(User { uid: 0, gid: 0, groups: vec![0, 4] }));
        assert!(user("nobody", |_| {}).unwrap_err().contains("no matching entries in passwd file"));
        assert!(user("www:none", |_| {}).unwrap_err().contains("no matching entries in group file"));
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let found = user("www:adm", |security| {
            security.run_as_user = Some(7);
            security.supplemental_groups = vec![9, 9];
        });
        assert_eq!(found, Ok(User { uid: 7, gid: 0, groups: vec![0, 9] }));
        let found = user("www", |security| security.run_as_group = Some(99));
        assert_eq!(found, Ok(User { uid: 33, gid: 99, groups: vec![99, 4, 55] }));
    }

    #[test]
    fn numbers_out_of_range_are_refused_and_never_names() {
        for bad in ["4294967296", "2147483648", "1000000000000", "00", "007", "99999999999999999999999"] {
            assert!(user(bad, |_| {}).is_err(), "{bad}");
        }
        assert!(user("-1", |_| {}).is_err(), "a name that does not exist");
        assert!(user("big", |_| {}).is_err(), "its uid is out of range");
        assert!(user("", |security| security.run_as_user = Some(-1)).is_err());
        assert!(user("", |security| security.run_as_user = Some(1 << 31)).is_err());
        assert!(user("", |security| security.supplemental_groups = vec![-5]).is_err());
    }

    #[test]
    fn run_as_non_root_is_verified_in_upstreams_words() {
        let refused = |image, run_as| {
            user(image, |security| {
                security.run_as_non_root = true;
                security.run_as_user = run_as;
            })
        };
        let of = "(pod: \"web_default(uid-1)\", container: main)";
        let root = format!("container has runAsNonRoot and image will run as root {of}");
        assert_eq!(refused("", None), Err(root.clone()));
        assert_eq!(refused("0:5", None), Err(root));
        let breaks = format!("container's runAsUser breaks non-root policy {of}");
        assert_eq!(refused("www", Some(0)), Err(breaks));
        let named = format!(
            "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root {of}"
        );
        assert_eq!(refused("www", None), Err(named));
        assert!(refused("33", None).is_ok());
        assert!(refused("www", Some(33)).is_ok());
    }
}
