//! The few system calls that no safe wrapper covers, each behind a safe function.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::PtyMaster;
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{ForkResult, Gid, Uid};
use tokio::io::unix::AsyncFd;

/// Capabilities no workload needs and that would reach the host's kernel: raw devices, clocks, modules.
const HOST_CAPABILITIES: [u32; 9] = [
    16, // CAP_SYS_MODULE
    17, // CAP_SYS_RAWIO
    20, // CAP_SYS_PACCT
    22, // CAP_SYS_BOOT
    25, // CAP_SYS_TIME
    27, // CAP_MKNOD
    33, // CAP_MAC_ADMIN
    34, // CAP_SYSLOG
    35, // CAP_WAKE_ALARM
];

/// Forks this process.
///
/// # Errors
/// `EBUSY` when another thread runs: only a single-threaded process may go on as usual in the child.
pub fn fork() -> nix::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: there is one thread, so no lock is held by a thread that the child lacks.
    unsafe { nix::unistd::fork() }
}

/// Whom a spawned process runs as.
#[derive(Clone, Debug)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Makes the command lead a session of its own, take its standard input as controlling terminal when
/// `terminal` says so, and run as `identity` (`None`: as the caller).
pub fn isolate_child(command: &mut tokio::process::Command, identity: Option<Identity>, terminal: bool) {
    let identity = identity.map(|identity| {
        let groups: Vec<Gid> = identity.groups.into_iter().map(Gid::from_raw).collect();
        (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid), groups)
    });
    let prepare = move || {
        nix::unistd::setsid()?;
        // What a job of a script has ignored from birth, a workload would too, and could never trap.
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGPIPE] {
            // SAFETY: sets a default, installs no handler.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
        }
        if terminal {
            // SAFETY: file descriptor 0 is the terminal's slave side; the call takes an integer.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        if let Some((uid, gid, groups)) = &identity {
            nix::unistd::setgroups(groups)?;
            nix::unistd::setgid(*gid)?;
            nix::unistd::setuid(*uid)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes locks.
    unsafe { command.pre_exec(prepare) };
}

/// Takes [`HOST_CAPABILITIES`] from everything this process executes later. Best effort: a kernel
/// that lacks one of them answers with an error that means nothing here.
pub fn drop_host_capabilities() {
    for capability in HOST_CAPABILITIES {
        // SAFETY: integers in, nothing written.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Brings the loopback interface of the current network namespace up.
///
/// # Errors
/// The interface is missing or may not be changed.
pub fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: an all-zero `ifreq` is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the pointer is to a live `ifreq` whose name is NUL-terminated.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Takes the standard input and output for own use, leaving `/dev/null` in their place.
///
/// # Errors
/// The descriptors cannot be duplicated.
pub fn take_stdio() -> io::Result<(OwnedFd, OwnedFd)> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok((input, output))
}

/// Sends one datagram, with a file descriptor when there is one.
///
/// # Errors
/// `WouldBlock` when the queue is full, `BrokenPipe` when the peer is gone.
pub fn send_message(socket: BorrowedFd<'_>, data: &[u8], fd: Option<RawFd>) -> io::Result<()> {
    let fds: Vec<RawFd> = fd.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(data)], control, flags, None)?;
    Ok(())
}

/// Receives one datagram and the file descriptor that came with it. Length 0: the peer is gone.
///
/// # Errors
/// `WouldBlock` when nothing is there yet.
pub fn receive_message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just installed this descriptor for us alone.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}

/// Wraps the master side of a terminal, which has to be in non-blocking mode.
///
/// # Errors
/// It cannot be registered with the runtime, or would block it.
pub fn terminal(master: PtyMaster) -> Result<pty_process::Pty, pty_process::Error> {
    let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL).map_err(io::Error::from)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    // SAFETY: the descriptor is that of a terminal's master side, ours alone and, as just checked, non-blocking.
    unsafe { pty_process::Pty::from_fd(master.into()) }
}

/// Registers a descriptor with the runtime.
///
/// # Errors
/// There is no runtime, or it is out of descriptors.
pub fn readiness_of(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is its descriptor for as long as it lives, and nothing else closes it.
    let registered = unsafe { AsyncFd::register(fd) };
    Ok(registered?)
}
