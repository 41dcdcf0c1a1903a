//! The process that writes a container's log: one per container, started by containerd's shim.
//!
//! In: the container's stdout and stderr as pipes on fds 3 and 4, and the settings in one argument. Out: the log file in
//! CRI format (`RFC3339Nano stdout F|P line`), rotated at a byte limit. It is the agent's own binary, entered before
//! any runtime starts: a container's output must not depend on an agent that may be restarted. It ignores SIGTERM and
//! ends when both streams have. All memory that grows with the output is taken at the start.
//!
//! Whoever connects to its attach socket gets a copy of what comes from then on (see [`attach`]).
//!
//! A program that wants to be a log sink begins its `main` so:
//!
//! ```no_run
//! let mut args = std::env::args_os().skip(1);
//! if args.next().is_some_and(|first| first == xebec_runtime::log_sink::SUBCOMMAND) {
//!     xebec_runtime::log_sink::main(args);
//! }
//! ```

mod attach;
mod entry;
mod file;
mod settings;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use self::attach::Audience;
pub(crate) use self::attach::{ATTACH_SOCKET, END, LONGEST_PIECE, PIECE_HEAD};
use self::entry::{Lines, Stream};
use self::file::LogFile;
use self::settings::Source;
pub(crate) use self::settings::{Settings, own_settings, uri};

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
    let mut streams = sources(settings.source)?;
    let mut audience = Audience::open(settings.folder.as_deref());
    // Not in the way of whoever wants to unmount the folder we were started in.
    let _ = std::env::set_current_dir("/");
    let mut lines = [Lines::new(Stream::Stdout), Lines::new(Stream::Stderr)];
    let source = settings.source;
    let mut file = LogFile::open(settings);
    if source == Source::Shim {
        // Whoever started us waits for it.
        nix::unistd::close(READY).map_err(|errno| format!("fd {READY}: {errno}"))?;
    }
    let mut chunk = vec![0; CHUNK].into_boxed_slice();
    // What an adopted stream has to say is read without waiting: a FIFO that nobody writes any more says nothing to poll.
    let mut ready = (source == Source::Adopted).then_some([true, true]);
    while streams.iter().any(Option::is_some) {
        let pending = lines.iter().any(Lines::is_pending);
        let timeout = if pending { PollTimeout::from(QUIET) } else { PollTimeout::NONE };
        let Some(ready) =
            ready.take().map_or_else(|| wait(&streams, &mut audience, timeout), |ready| Ok(Some(ready)))?
        else {
            for unfinished in &mut lines {
                unfinished.interrupt(SystemTime::now(), &mut file);
            }
            file.flush();
            continue;
        };
        for (index, ready) in ready.into_iter().enumerate() {
            if ready && !pass(&mut streams[index], &mut lines[index], &mut chunk, &mut file, &mut audience) {
                lines[index].end(SystemTime::now(), &mut file);
                streams[index] = None;
            }
        }
        file.flush();
    }
    audience.end();
    Ok(())
}

/// stdout and stderr of the container.
fn sources(source: Source) -> Result<[Option<File>; 2], String> {
    if source == Source::Shim {
        return Ok([reopen(STDOUT)?, reopen(STDERR)?]);
    }
    // Of our own session: what is sent to the agent's terminal is not for us.
    let _ = nix::unistd::setsid();
    let own = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map(|fd| Some(File::from(fd))).map_err(|error| format!("streams: {error}"))
    };
    Ok([own(std::io::stdin().as_fd())?, own(std::io::stdout().as_fd())?])
}

/// The pipe of an inherited descriptor under an open file description of our own: non-blocking for us only.
fn reopen(fd: i32) -> Result<Option<File>, String> {
    let path = format!("/proc/self/fd/{fd}");
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(|error| format!("fd {fd}: {error}"))?;
    nix::unistd::close(fd).map_err(|errno| format!("fd {fd}: {errno}"))?;
    Ok(Some(file))
}

/// Waits until something can be read (or has ended) and tells which; `None` when nothing came in time. Who attaches
/// or leaves meanwhile is seen to.
fn wait(
    streams: &[Option<File>; 2],
    audience: &mut Audience,
    timeout: PollTimeout,
) -> Result<Option<[bool; 2]>, String> {
    let mut ready = [false; 2];
    let others = {
        let mut fds = Vec::with_capacity(2 + attach::DESCRIPTORS);
        fds.extend(streams.iter().flatten().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)));
        fds.extend(audience.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(None),
            Err(Errno::EINTR) => return Ok(Some(ready)),
            Err(errno) => return Err(format!("poll: {errno}")),
            Ok(_) => {}
        }
        let mut found = fds.iter().map(|fd| fd.any().unwrap_or(true));
        for (stream, ready) in streams.iter().zip(&mut ready) {
            *ready = stream.is_some() && found.next().unwrap_or(false);
        }
        found.collect::<Vec<bool>>()
    };
    audience.attend(&others);
    Ok(Some(ready))
}

/// Passes on what can be read now; false at the stream's end.
fn pass(
    stream: &mut Option<File>,
    lines: &mut Lines,
    chunk: &mut [u8],
    file: &mut LogFile,
    audience: &mut Audience,
) -> bool {
    let Some(pipe) = stream else { return false };
    match pipe.read(chunk) {
        Ok(0) => false,
        Ok(length) => {
            lines.push(&chunk[..length], SystemTime::now(), file);
            // Clients may be waited for; the log is not to wait with them.
            file.flush();
            audience.tell(lines.stream(), &chunk[..length]);
            true
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}
