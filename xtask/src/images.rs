//! Everyday images from Debian packages: nginx, busybox, iperf3.
//!
//! In: the private apt. Out: the OCI layout at `target/images`, which the hubs' registries serve as docker.io.
//! The images follow the names, paths and start commands of those that everyday manifests expect.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{Apt, Dependencies};
use crate::command::{cmd, output};
use crate::layout::Workspace;
use crate::oci::{ImageConfig, Layer, Layout};
use crate::progress::Note;
use crate::tools::Tools;

/// Raised when a recipe below changes, so that an old layout is made anew.
const RECIPES: &str = "1";

const PATH_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the layout unless it is there already.
///
/// # Errors
/// When packages cannot be fetched or the disk is full.
pub fn build(workspace: &Workspace, tools: &Tools, note: &Note) -> Result<PathBuf> {
    let dir = workspace.images();
    let stamp = dir.join("recipes");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == RECIPES) && dir.join("index.json").exists() {
        return Ok(dir);
    }
    let roots = dir.join("roots");
    if roots.exists() {
        fs::remove_dir_all(&roots)?;
    }
    let mut layout = Layout::create(&dir)?;
    note.say("busybox");
    let busybox = busybox_root(tools.apt(), &roots.join("busybox"))?;
    let shell = layout.layer(&busybox)?;
    layout.image(
        &[
            "docker.io/library/busybox:latest",
            "docker.io/library/busybox:stable",
            "docker.io/library/busybox:1.35",
        ],
        std::slice::from_ref(&shell),
        &ImageConfig {
            cmd: vec!["sh".into()],
            env: vec![PATH_ENV.into()],
            working_dir: "/".into(),
            ..Default::default()
        },
    )?;
    note.say("nginx");
    nginx(&mut layout, tools.apt(), &roots, &shell)?;
    note.say("iperf3");
    let iperf3 = debian_root(tools.apt(), &["iperf3"], &roots.join("iperf3"))?;
    let iperf3 = layout.layer(&iperf3)?;
    layout.image(
        &["docker.io/library/iperf3:latest", "docker.io/networkstatic/iperf3:latest"],
        &[iperf3, shell],
        &ImageConfig { entrypoint: vec!["iperf3".into()], env: vec![PATH_ENV.into()], ..Default::default() },
    )?;
    layout.finish()?;
    fs::remove_dir_all(&roots)?;
    fs::write(stamp, RECIPES)?;
    Ok(dir)
}

/// `nginx:latest` and `nginx:next`: the same server with two pages, so that a roll-out can be seen.
fn nginx(layout: &mut Layout, apt: &Apt, roots: &Path, shell: &Layer) -> Result<()> {
    let root = debian_root(apt, &["nginx"], &roots.join("nginx"))?;
    for dir in ["var/lib/nginx", "var/log/nginx", "var/cache/nginx", "etc/nginx/conf.d", "run"] {
        fs::create_dir_all(root.join(dir))?;
    }
    symlink("/dev/stdout", root.join("var/log/nginx/access.log"))?;
    symlink("/dev/stderr", root.join("var/log/nginx/error.log"))?;
    fs::write(root.join("etc/nginx/nginx.conf"), NGINX_CONF)?;
    fs::write(root.join("etc/nginx/conf.d/default.conf"), NGINX_SITE)?;
    let server = layout.layer(&root)?;
    let config = ImageConfig {
        cmd: ["nginx", "-g", "daemon off;"].map(String::from).to_vec(),
        env: vec![PATH_ENV.into()],
        stop_signal: Some("SIGQUIT"),
        ..Default::default()
    };
    for (tags, title) in [
        (["docker.io/library/nginx:latest", "docker.io/library/nginx:1.22"], "Welcome to nginx!"),
        (["docker.io/library/nginx:next", "docker.io/library/nginx:1.23"], "Welcome to the next nginx!"),
    ] {
        let page = roots.join("page");
        let html = page.join("usr/share/nginx/html");
        fs::create_dir_all(&html)?;
        fs::write(
            html.join("index.html"),
            format!(
                "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
            ),
        )?;
        let page_layer = layout.layer(&page)?;
        fs::remove_dir_all(page)?;
        layout.image(&tags, &[shell.clone(), server.clone(), page_layer], &config)?;
    }
    Ok(())
}

const NGINX_CONF: &str = "\
user www-data;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
";

const NGINX_SITE: &str = "\
server {
    listen 80;
    listen [::]:80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
";

fn busybox_root(apt: &Apt, root: &Path) -> Result<PathBuf> {
    let unpacked = root.with_extension("deb");
    apt.unpack(&["busybox-static"], Dependencies::All, &unpacked)?;
    base(root)?;
    let busybox = root.join("bin/busybox");
    let packaged = [unpacked.join("bin/busybox"), unpacked.join("usr/bin/busybox")]
        .into_iter()
        .find(|p| p.exists())
        .context("busybox-static holds no busybox")?;
    fs::copy(&packaged, &busybox)?;
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755))?;
    for applet in output(&mut cmd(&busybox, ["--list"]))?.lines() {
        let link = root.join("usr/bin").join(applet);
        if !link.exists() {
            symlink("busybox", link)?;
        }
    }
    Ok(root.to_path_buf())
}

/// Packages with all they need, without documentation.
fn debian_root(apt: &Apt, packages: &[&str], root: &Path) -> Result<PathBuf> {
    base(root)?;
    apt.unpack(packages, Dependencies::All, root)?;
    for dir in [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/lintian",
        "usr/share/bash-completion",
        // Some libraries' packages pull in perl for their maintainer scripts, which never run here.
        "usr/share/perl",
        "usr/share/perl5",
    ] {
        let dir = root.join(dir);
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
    }
    Ok(root.to_path_buf())
}

/// Folders, merged-/usr links and the few files that every image has.
fn base(root: &Path) -> Result<()> {
    for dir in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "tmp",
        "var/tmp",
        "root",
        "home",
        "proc",
        "sys",
        "dev",
        "run",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    for dir in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o1777))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")?;
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
    Ok(())
}
