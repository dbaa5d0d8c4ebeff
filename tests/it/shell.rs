//! Completions and manual pages know every command.

use std::process::Command;

use shiftwise::reports::COMMANDS;
use shiftwise_tests::command::Folder;

#[test]
fn every_shell_has_a_script_with_every_command() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = folder.run(&format!("completions {shell}"));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{shell}");
        let missing: Vec<_> = COMMANDS.iter().filter(|c| **c != "error" && !ran.out.contains(**c)).collect();
        assert!(missing.is_empty() && ran.out.contains("output-dir"), "{shell}: {missing:?}");
        assert_eq!(folder.run(&format!("completions {shell} --json")).json()["script"], ran.out.as_str());
    }
    assert_eq!(folder.run("completions tcsh").code, Some(2));
}

/// What bash proposes for the last of the words.
fn proposed(folder: &Folder, words: &[&str]) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let (last, before) = (words.len() - 1, words.len().saturating_sub(2));
    let script = format!(
        "source ./s.bash; COMP_WORDS=({}); COMP_CWORD={last}; _shiftwise shiftwise '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words[last],
        words[before],
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).current_dir(&folder.path).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_their_options() {
    if !Command::new("bash").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("no bash here");
        return;
    }
    let folder = Folder::new("bash");
    folder.write("s.bash", folder.run("completions bash").out.as_bytes());
    assert_eq!(proposed(&folder, &["shiftwise", "quan"]), ["quantize"]);
    assert_eq!(proposed(&folder, &["shiftwise", "quantize", "--calib-s"]), ["--calib-steps"]);
    assert_eq!(proposed(&folder, &["shiftwise", "completions", "po"]), ["powershell"]);
    assert_eq!(proposed(&folder, &["shiftwise", "strategy", "d"]), ["dump"]);
}

#[test]
fn every_command_has_a_page() {
    let folder = Folder::new("man");
    let ran = folder.run("man pages");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let tree = folder.tree();
    for command in COMMANDS.iter().filter(|c| **c != "error") {
        let page = tree.get(&format!("pages/shiftwise-{command}.1")).unwrap_or_else(|| panic!("{command} has none"));
        let page = String::from_utf8_lossy(page);
        assert!(page.contains(&format!(".TH shiftwise-{command} 1")) && page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(tree.contains_key("pages/shiftwise.1") && tree.contains_key("pages/shiftwise-strategy-dump.1"));
    let again = folder.run("man pages --json").json();
    assert_eq!(again["pages"].as_array().unwrap().len(), tree.keys().filter(|k| k.starts_with("pages/")).count());
}
