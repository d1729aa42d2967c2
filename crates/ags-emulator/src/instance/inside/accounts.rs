//! The account files of an instance: the machine's, with `root` and `user` as envd's images have
//! them and without anybody's password.

use super::USER_ID;

const ROOT: &str = "root:x:0:0:root:/root:/bin/bash";

/// `/etc/passwd` of an instance.
pub fn passwd(host: &str) -> String {
    let user = format!("user:x:{USER_ID}:{USER_ID}::/home/user:/bin/bash");
    let others = host.lines().filter(|line| !is(line, "root", 0) && !is(line, "user", USER_ID));
    lines([ROOT, &user].into_iter().chain(others))
}

/// `/etc/group` of an instance.
pub fn group(host: &str) -> String {
    let user = format!("user:x:{USER_ID}:");
    let others = host.lines().filter(|line| !is(line, "root", 0) && !is(line, "user", USER_ID));
    lines(["root:x:0:", &user].into_iter().chain(others))
}

/// `/etc/shadow` for a `/etc/passwd`: nobody has a password.
pub fn shadow(passwd: &str) -> String {
    let names = passwd.lines().filter_map(|line| line.split(':').next());
    let entries: Vec<String> = names.map(|name| format!("{name}:*:19000:0:99999:7:::")).collect();
    lines(entries.iter().map(String::as_str))
}

/// `/etc/hosts` with the instance's own name.
pub fn hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// `/etc/sudoers.d/user`: what the official images allow.
pub const SUDOERS: &str = "user ALL=(ALL:ALL) NOPASSWD: ALL\n";

fn is(line: &str, name: &str, id: u32) -> bool {
    let mut fields = line.split(':');
    fields.next() == Some(name) || fields.nth(1) == Some(&id.to_string())
}

fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.fold(String::new(), |mut text, line| {
        text.push_str(line);
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "root:x:0:0:r:/var/root:/bin/zsh\ndaemon:x:1:1::/:/bin/false\n\
                        alice:x:1000:1000::/home/alice:/bin/bash\nuser:x:4:4::/:/bin/sh\n";

    #[test]
    fn root_and_user_replace_whoever_had_the_name_or_the_id() {
        let passwd = passwd(HOST);
        let names: Vec<_> = passwd.lines().filter_map(|l| l.split(':').next()).collect();
        assert_eq!(names, ["root", "user", "daemon"]);
        assert!(passwd.contains("user:x:1000:1000::/home/user:/bin/bash\n"));
    }

    #[test]
    fn nobody_has_a_password() {
        let shadow = shadow("root:x:0:0\ndaemon:x:1:1\n");
        assert!(shadow.lines().all(|line| line.split(':').nth(1) == Some("*")));
        assert_eq!(shadow.lines().count(), 2);
    }
}
