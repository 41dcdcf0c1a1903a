//! The process that writes a container's log: one per container, started by containerd's shim.
//!
//! In: the container's stdout and stderr as pipes on fds 3 and 4, and the settings in one argument. Out: the log file in
//! CRI format (`RFC3339Nano stdout F|P line`), rotated at a byte limit. It is the agent's own binary, entered before
//! any runtime starts: a container's output must not depend on an agent that may be restarted. It ignores SIGTERM and
//! ends when both streams have. All memory it uses is taken at the start.
//!
//! A program that wants to be a log sink begins its `main` so:
//!
//! ```no_run
//! let mut args = std::env::args_os().skip(1);
//! if args.next().is_some_and(|first| first == xebec_runtime::log_sink::SUBCOMMAND) {
//!     xebec_runtime::log_sink::main(args);
//! }
//! ```

mod entry;
mod file;
mod settings;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use self::entry::{Lines, Stream};
use self::file::LogFile;
pub(crate) use self::settings::{Settings, uri};

/// First argument of a log sink.
pub const SUBCOMMAND: &str = "log-sink";

/// containerd's convention for `binary://` sinks.
const STDOUT: i32 = 3;
const STDERR: i32 = 4;
const READY: i32 = 5;
/// An unfinished line is written after so many milliseconds without more of it. containerd 1.6 keeps the streams open
/// until the task is deleted: the last words of a container that has ended would be seen only then.
const QUIET: u16 = 50;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// Runs a log sink to the end of its streams. `args` is what follows [`SUBCOMMAND`].
pub fn main(args: impl Iterator<Item = OsString>) -> ! {
    std::process::exit(match run(args) {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("log-sink: {reason}");
            1
        }
    })
}

fn run(mut args: impl Iterator<Item = OsString>) -> Result<(), String> {
    // A blocked signal stays pending, which is as good as ignored and inherited by nobody.
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        ignored.add(signal);
    }
    ignored.thread_block().map_err(|errno| format!("signals cannot be blocked: {errno}"))?;
    let settings = args.next().ok_or("one argument is needed: the settings")?;
    let settings = settings.to_str().and_then(Settings::parse).ok_or("the settings cannot be read")?;
    // Not in the way of whoever wants to unmount the folder we were started in.
    let _ = std::env::set_current_dir("/");
    let mut streams = [reopen(STDOUT)?, reopen(STDERR)?];
    let mut lines = [Lines::new(Stream::Stdout), Lines::new(Stream::Stderr)];
    let mut file = LogFile::open(settings);
    nix::unistd::close(READY).map_err(|errno| format!("fd {READY}: {errno}"))?;
    let mut chunk = vec![0; CHUNK].into_boxed_slice();
    while streams.iter().any(Option::is_some) {
        let pending = lines.iter().any(Lines::is_pending);
        let timeout = if pending { PollTimeout::from(QUIET) } else { PollTimeout::NONE };
        let Some(ready) = wait(&streams, timeout)? else {
            for unfinished in &mut lines {
                unfinished.interrupt(SystemTime::now(), &mut file);
            }
            file.flush();
            continue;
        };
        for (index, ready) in ready.into_iter().enumerate() {
            if ready && !pass(&mut streams[index], &mut lines[index], &mut chunk, &mut file) {
                lines[index].end(SystemTime::now(), &mut file);
                streams[index] = None;
            }
        }
        file.flush();
    }
    Ok(())
}

/// The pipe of an inherited descriptor under an open file description of our own: non-blocking for us only.
fn reopen(fd: i32) -> Result<Option<File>, String> {
    let path = format!("/proc/self/fd/{fd}");
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(|error| format!("fd {fd}: {error}"))?;
    nix::unistd::close(fd).map_err(|errno| format!("fd {fd}: {errno}"))?;
    Ok(Some(file))
}

/// Waits until something can be read (or has ended) and tells which; `None` when nothing came in time.
fn wait(streams: &[Option<File>; 2], timeout: PollTimeout) -> Result<Option<[bool; 2]>, String> {
    let [stdout, stderr] = streams;
    let watched = |stream: &Option<File>| stream.is_some();
    let interest = PollFlags::POLLIN;
    let answer = match (stdout, stderr) {
        (Some(first), Some(second)) => {
            let mut fds = [PollFd::new(first.as_fd(), interest), PollFd::new(second.as_fd(), interest)];
            poll(&mut fds, timeout).map(|ready| (ready, [fds[0].any(), fds[1].any()]))
        }
        (Some(only), None) | (None, Some(only)) => {
            let mut fds = [PollFd::new(only.as_fd(), interest)];
            poll(&mut fds, timeout).map(|ready| (ready, [fds[0].any(), fds[0].any()]))
        }
        (None, None) => return Ok(Some([false, false])),
    };
    match answer {
        Ok((0, _)) => Ok(None),
        Ok((_, [first, second])) => {
            Ok(Some([watched(stdout) && first.unwrap_or(true), watched(stderr) && second.unwrap_or(true)]))
        }
        Err(Errno::EINTR) => Ok(Some([false, false])),
        Err(errno) => Err(format!("poll: {errno}")),
    }
}

/// Passes on what can be read now; false at the stream's end.
fn pass(stream: &mut Option<File>, lines: &mut Lines, chunk: &mut [u8], file: &mut LogFile) -> bool {
    let Some(pipe) = stream else { return false };
    match pipe.read(chunk) {
        Ok(0) => false,
        Ok(length) => {
            lines.push(&chunk[..length], SystemTime::now(), file);
            true
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
