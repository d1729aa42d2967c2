//! Which program runs cells of a language, and how it is talked to.

/// How a kernel is told what to run. Replies are lines of JSON, but for a shell's, which are exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A line of JSON.
    Json,
    /// Changes of the environment and the code, each as its length and UTF-8.
    Strings,
    /// A command.
    Shell,
}

/// What a kernel is started as.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub program: &'static str,
    /// In front of the driver's path, and behind it.
    pub arguments: (&'static [&'static str], &'static [&'static str]),
    /// File name and text of the driver.
    pub driver: (&'static str, &'static str),
    pub protocol: Protocol,
}

const PYTHON: Recipe = Recipe {
    program: "python3",
    arguments: (&[], &[]),
    driver: ("kernel.py", include_str!("drivers/kernel.py")),
    protocol: Protocol::Json,
};

const JAVASCRIPT: Recipe = Recipe {
    program: "node",
    arguments: (&[], &[]),
    driver: ("kernel.js", include_str!("drivers/kernel.js")),
    protocol: Protocol::Json,
};

const TYPESCRIPT: Recipe = Recipe { arguments: (&[], &["typescript"]), ..JAVASCRIPT };

const BASH: Recipe = Recipe {
    program: "bash",
    arguments: (&["--noprofile", "--noediting", "--rcfile"], &["-i"]),
    driver: ("kernel.bash", include_str!("drivers/kernel.bash")),
    protocol: Protocol::Shell,
};

const JAVA: Recipe = Recipe {
    program: "java",
    // It starts in half the time and takes half the memory.
    arguments: (&["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"], &[]),
    driver: ("Kernel.java", include_str!("drivers/Kernel.java")),
    protocol: Protocol::Strings,
};

/// R cannot write to a socket: a pipe takes its replies there. An interrupt is for R alone.
const R_SHELL: &str = r#"
command -v Rscript >/dev/null || { echo 'Rscript is not installed' >&2; exit 127; }
trap '' INT
exec 6>&0
{ Rscript --vanilla "$1" 4>&1 1>&5 6>&- | cat >&6; } 5>&1
"#;

const R: Recipe = Recipe {
    program: "sh",
    arguments: (&["-c", R_SHELL, "sh"], &[]),
    driver: ("kernel.R", include_str!("drivers/kernel.R")),
    protocol: Protocol::Strings,
};

/// The name under which a language is known here: lower case, without the usual short forms.
pub fn normalise(name: &str) -> String {
    match name.trim().to_lowercase().as_str() {
        "js" => "javascript".into(),
        "ts" => "typescript".into(),
        other => other.to_owned(),
    }
}

/// The kernel of a normalised language; `None`: there is none.
pub fn recipe(language: &str) -> Option<Recipe> {
    match language {
        "python" => Some(PYTHON),
        "javascript" => Some(JAVASCRIPT),
        "typescript" => Some(TYPESCRIPT),
        "bash" => Some(BASH),
        "java" => Some(JAVA),
        "r" => Some(R),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (given, known) in [(" Python ", "python"), ("JS", "javascript"), ("ts", "typescript"), ("R", "r")] {
            assert_eq!(normalise(given), known);
        }
        assert!(recipe("cobol").is_none());
    }
}
