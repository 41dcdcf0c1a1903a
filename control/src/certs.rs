//! `xebec-control certs`: when the cluster's certificates end.
//!
//! In: a data folder. Out: a table, in the form of `kubeadm certs check-expiration`. The CA comes last: it is never renewed
//! by itself.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::CertsArgs;
use crate::pki::{self, Validity};
use crate::{data_dir, files};

/// A line of the table.
struct Row {
    name: &'static str,
    expires: String,
    left: String,
    renewed: &'static str,
}

pub fn show(arguments: &CertsArgs) -> Result<()> {
    let rows = rows(&data_dir::pki(&arguments.data_dir), pki::now())?;
    println!("{:<28} {:<24} {:<15} RENEWED", "CERTIFICATE", "EXPIRES", "RESIDUAL TIME");
    for Row { name, expires, left, renewed } in rows {
        println!("{name:<28} {expires:<24} {left:<15} {renewed}");
    }
    Ok(())
}

fn rows(folder: &Path, now: i64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, renewed) in [(pki::SERVING, "by itself"), (pki::KUBELET_CLIENT, "by itself"), (pki::CA, "no")]
    {
        let path = folder.join(format!("{name}.crt"));
        let text = files::read(&path)?.with_context(|| {
            format!("there is no {}: `xebec-control run` with this data folder makes it", path.display())
        })?;
        let Validity { not_after, .. } = Validity::of(&text).with_context(|| path.display().to_string())?;
        let expires = Timestamp::from_second(not_after)?.to_zoned(TimeZone::UTC);
        let expires = expires.strftime("%b %d, %Y %H:%M UTC").to_string();
        rows.push(Row { name, expires, left: left(not_after.saturating_sub(now)), renewed });
    }
    Ok(rows)
}

/// The largest unit that says something.
fn left(seconds: i64) -> String {
    match seconds {
        ..=0 => "<invalid>".to_owned(),
        1..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_one_unit() {
        let found = [-5, 0, 90, 600, 86_400, 40 * 86_400].map(left);
        assert_eq!(found, ["<invalid>", "<invalid>", "90s", "10m", "24h", "40d"]);
    }

    #[test]
    fn every_certificate_has_a_line() {
        let folder = tempfile::tempdir().unwrap();
        assert!(rows(folder.path(), 0).err().unwrap().to_string().contains("`xebec-control run`"));
        pki::prepare(folder.path(), pki::serving_subject("cluster.local", []), pki::LIFE).unwrap();
        let rows = rows(folder.path(), pki::now()).unwrap();
        let shown: Vec<(&str, &str)> = rows.iter().map(|row| (row.name, row.left.as_str())).collect();
        assert_eq!(shown, [("apiserver", "365d"), ("apiserver-kubelet-client", "365d"), ("ca", "3650d")]);
    }
}
