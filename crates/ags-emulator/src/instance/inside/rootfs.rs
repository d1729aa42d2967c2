//! The root file system of an instance: the machine's own, unchanged by what is written inside.
//!
//! The first that works is taken: an overlay whose upper layer is in the state directory, one whose
//! upper layer is in memory, a read-only bind. Home, temporary and run directories are the
//! instance's own in every case.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{HOME, Isolation, Plan, ROOT_HOME, accounts};

const NONE: Option<&str> = None;

/// Builds the root file system and changes into it. Says which kind it is.
pub fn build(plan: &Plan) -> anyhow::Result<String> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("private mounts")?;
    let root = plan.state_dir.join("rootfs");
    let volumes = volumes(&fs::read_to_string("/proc/self/mountinfo").context("mount table")?);
    let kind = mount_base(plan, &root)?;
    for volume in volumes {
        // A volume that cannot be bound, such as a file or a foreign user's FUSE, is left out.
        let _best_effort = bind_read_only(Path::new(&volume), &under(&root, Path::new(&volume)));
    }
    mount_own_directories(plan, &root)?;
    mount_run(&root)?;
    hide(plan, &root)?;
    mount_devices(plan, &root).context("/dev")?;
    mount_proc(plan, &root).context("/proc")?;
    mount_sys(&root);
    write_etc(plan, &root, kind)?;
    pivot(&root).context("pivot_root")?;
    Ok(format!("{}, {}", plan.isolation, kind.describe()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Overlay,
    MemoryOverlay,
    Bind,
}

impl Base {
    fn describe(self) -> &'static str {
        match self {
            Self::Overlay => "overlay on disk",
            Self::MemoryOverlay => "overlay in memory",
            Self::Bind => "read-only bind",
        }
    }
}

fn mount_base(plan: &Plan, root: &Path) -> anyhow::Result<Base> {
    if mount_overlay(plan, &plan.state_dir, root).is_ok() {
        return Ok(Base::Overlay);
    }
    let memory = plan.state_dir.join("memory");
    fs::create_dir_all(&memory)?;
    if mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), NONE).is_ok()
        && mount_overlay(plan, &memory, root).is_ok()
    {
        return Ok(Base::MemoryOverlay);
    }
    bind(Path::new("/"), root).context("bind of the root file system")?;
    // Where even this is refused, permissions still keep an unprivileged caller from writing.
    let _best_effort = remount_read_only(root);
    Ok(Base::Bind)
}

fn mount_overlay(plan: &Plan, layers: &Path, root: &Path) -> anyhow::Result<()> {
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let extra = match plan.isolation {
        Isolation::UserNamespace => ",userxattr",
        _ => "",
    };
    let options = format!("lowerdir=/,upperdir={},workdir={}{extra}", escape(&upper)?, escape(&work)?);
    mount(Some("overlay"), root, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))?;
    Ok(())
}

/// A path as an overlay option, where comma and colon separate.
fn escape(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().context("a state directory that is no UTF-8")?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, ',' | ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Ok(escaped)
}

/// Mount points of further disks and volumes, which an overlay of `/` does not show.
fn volumes(mountinfo: &str) -> Vec<String> {
    const OWN: [&str; 9] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/home", "/root", "/var/tmp", "/boot"];
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| point.replace("\\040", " "))
        .filter(|point| point != "/")
        .filter(|point| !OWN.iter().any(|own| Path::new(point).starts_with(own)))
        .collect()
}

fn mount_own_directories(plan: &Plan, root: &Path) -> anyhow::Result<()> {
    for (source, target) in [(HOME, "home"), (ROOT_HOME, "root"), ("tmp", "tmp"), ("var-tmp", "var/tmp")] {
        let target = root.join(target);
        fs::create_dir_all(&target).with_context(|| format!("{}", target.display()))?;
        bind(&plan.state_dir.join(source), &target).with_context(|| format!("{}", target.display()))?;
    }
    for path in &plan.exposed {
        bind_read_only(path, &under(root, path)).with_context(|| format!("exposed {}", path.display()))?;
    }
    Ok(())
}

fn mount_run(root: &Path) -> anyhow::Result<()> {
    let run = root.join("run");
    mount_tmpfs(&run, MsFlags::MS_NODEV, "mode=755").context("/run")?;
    let lock = run.join("lock");
    fs::create_dir(&lock)?;
    super::set_mode(&lock, 0o1777)
}

/// Covers what the machine keeps to itself: directories by an empty one, files by nothing.
fn hide(plan: &Plan, root: &Path) -> anyhow::Result<()> {
    for path in &plan.hidden {
        let target = under(root, path);
        match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => mount_tmpfs(&target, MsFlags::MS_RDONLY, "size=4k,mode=555"),
            Ok(_) => bind(Path::new("/dev/null"), &target),
            Err(_) => Ok(()),
        }
        .with_context(|| format!("hiding {}", path.display()))?;
    }
    Ok(())
}

fn mount_devices(plan: &Plan, root: &Path) -> anyhow::Result<()> {
    let dev = root.join("dev");
    mount_tmpfs(&dev, MsFlags::MS_NOSUID, "mode=755")?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        fs::write(dev.join(name), "")?;
        bind(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(target, dev.join(link))?;
    }
    fs::create_dir(dev.join("pts"))?;
    fs::create_dir(dev.join("shm"))?;
    let options = match plan.isolation {
        // Group `tty` is not mapped there.
        Isolation::UserNamespace => "newinstance,ptmxmode=0666,mode=620",
        _ => "newinstance,ptmxmode=0666,mode=620,gid=5",
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, Some(options))?;
    mount_tmpfs(&dev.join("shm"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")
}

fn mount_proc(plan: &Plan, root: &Path) -> anyhow::Result<()> {
    let proc = root.join("proc");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &proc, Some("proc"), flags, NONE)?;
    if plan.isolation == Isolation::Namespaces {
        // Root inside is root: these would change the machine.
        for path in ["sys", "sysrq-trigger"].map(|name| proc.join(name)) {
            // Kernels without SysRq have no such file.
            if path.exists() {
                bind(&path, &path)?;
                remount_read_only(&path)?;
            }
        }
    }
    Ok(())
}

/// Best effort: little needs `/sys`, and some machines do not let it be mounted.
fn mount_sys(root: &Path) {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let sys = root.join("sys");
    if mount(Some("sysfs"), &sys, Some("sysfs"), flags, NONE).is_err() {
        let _best_effort = bind_read_only(Path::new("/sys"), &sys);
    }
}

fn write_etc(plan: &Plan, root: &Path, base: Base) -> anyhow::Result<()> {
    let etc = root.join("etc");
    let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap_or_default();
    let passwd = accounts::passwd(&read("passwd"));
    let mut files = vec![
        ("group", accounts::group(&read("group")), 0o644),
        ("shadow", accounts::shadow(&passwd), 0o640),
        ("passwd", passwd, 0o644),
        ("hostname", format!("{}\n", plan.id), 0o644),
        ("hosts", accounts::hosts(&plan.id), 0o644),
    ];
    if let Some(text) = &plan.resolv_conf {
        files.push(("resolv.conf", text.clone(), 0o644));
    }
    // What belongs to the machine's root cannot be replaced from a user namespace, only covered.
    if base == Base::Bind || plan.isolation == Isolation::UserNamespace {
        return bind_files(plan, &etc, &files);
    }
    fs::create_dir_all(etc.join("sudoers.d"))?;
    files.push(("sudoers.d/user", accounts::SUDOERS.into(), 0o440));
    for (name, text, mode) in &files {
        let path = etc.join(name);
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).with_context(|| format!("/etc/{name}"))?;
        }
        fs::write(&path, text).with_context(|| format!("/etc/{name}"))?;
        super::set_mode(&path, *mode)?;
    }
    Ok(())
}

/// Binds own versions over the files that exist, as nothing can be written there.
fn bind_files(plan: &Plan, etc: &Path, files: &[(&str, String, u32)]) -> anyhow::Result<()> {
    let own = plan.state_dir.join("etc");
    fs::create_dir_all(&own)?;
    for (name, text, mode) in files {
        let (source, target) = (own.join(name), etc.join(name));
        fs::write(&source, text)?;
        super::set_mode(&source, *mode)?;
        if target.exists() {
            bind(&source, &target).with_context(|| format!("/etc/{name}"))?;
        }
    }
    Ok(())
}

fn pivot(root: &Path) -> anyhow::Result<()> {
    std::env::set_current_dir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    Ok(())
}

fn bind_read_only(source: &Path, target: &Path) -> anyhow::Result<()> {
    if fs::metadata(source)?.is_dir() {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(target, "")?;
    }
    bind(source, target)?;
    remount_read_only(target)
}

fn remount_read_only(target: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, flags, NONE)?;
    Ok(())
}

fn mount_tmpfs(target: &Path, flags: MsFlags, options: &str) -> anyhow::Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_further_volumes_are_bound() {
        let table = "21 1 8:1 / / rw - ext4 /dev/sda rw\n\
                     22 21 0:5 / /proc rw - proc proc rw\n\
                     23 21 0:6 / /dev/shm rw - tmpfs tmpfs rw\n\
                     24 21 8:2 / /data/with\\040space rw - ext4 /dev/sdb rw\n\
                     25 21 8:3 / /home rw - ext4 /dev/sdc rw\n";
        assert_eq!(volumes(table), ["/data/with space"]);
    }

    #[test]
    fn separators_of_overlay_options_are_escaped() -> anyhow::Result<()> {
        assert_eq!(escape(Path::new("/a,b:c\\d"))?, "/a\\,b\\:c\\\\d");
        Ok(())
    }
}
