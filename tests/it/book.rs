//! The book in `docs/`: what its sessions show is what the commands do.

use std::path::Path;

use shiftwise_tests::command::Folder;

/// A command of a page, and what the page shows of it.
#[derive(Debug)]
struct Shown {
    words: Vec<String>,
    /// Lines that the output has, in this order; others may stand between them where the page has `…`.
    lines: Vec<String>,
    code: i32,
}

/// Words as a shell splits them; of quotes there are single ones.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut open) = (Vec::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, open) = (!quoted, open),
            ' ' if !quoted => open = false,
            _ => {
                if !open {
                    words.push(String::new());
                    open = true;
                }
                words.last_mut().expect("one is open").push(c);
            }
        }
    }
    words
}

/// The commands in a page's blocks of the kind `console`.
fn sessions(page: &str) -> Vec<Shown> {
    let (mut shown, mut inside) = (Vec::<Shown>::new(), false);
    for line in page.lines() {
        match (line.strip_prefix("```"), line.strip_prefix("$ ")) {
            (Some(kind), _) => inside = kind == "console",
            (None, Some(command)) if inside => {
                shown.push(Shown { words: words(command), lines: Vec::new(), code: 0 });
            }
            (None, _) if inside => {
                let last = shown.last_mut().expect("a session begins with a command");
                match line.strip_prefix("[exit ").and_then(|rest| rest.strip_suffix(']')) {
                    Some(code) => last.code = code.parse().expect("an exit code"),
                    None => last.lines.push(line.to_owned()),
                }
            }
            (None, _) => {}
        }
    }
    shown
}

/// What a page shows and the output doesn't have: the first such line.
fn missing<'a>(shown: &'a Shown, output: &str) -> Option<&'a str> {
    let mut rest = output.lines();
    // A line may be cut short by `…`.
    let has = |real: &str, line: &str| match line.strip_suffix('…') {
        Some(start) => real.trim_end().starts_with(start),
        None => real.trim_end() == line.trim_end(),
    };
    shown.lines.iter().map(String::as_str).filter(|line| *line != "…").find(|line| !rest.any(|real| has(real, line)))
}

#[test]
fn the_pages_of_the_book_show_what_the_commands_do() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let pages: Vec<&str> = summary.lines().filter_map(|l| l.split_once("](")?.1.strip_suffix(')')).collect();
    assert!(pages.len() > 5, "{pages:?}");
    let emulator = std::env::var_os("SHIFTWISE_QEMU").is_some();
    let (mut wrong, mut commands) = (String::new(), 0);
    for page in pages {
        let folder = Folder::new(&format!("book-{}", page.replace('/', "-")));
        for shown in sessions(&std::fs::read_to_string(docs.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"))) {
            let line = shown.words.join(" ");
            if line.contains("qemu:") && !emulator {
                println!("{page}: `{line}` needs SHIFTWISE_QEMU=1");
                continue;
            }
            let [program, arguments @ ..] = shown.words.as_slice() else { panic!("{page}: an empty command") };
            assert_eq!(program, "shiftwise", "{page}: sessions have this program's commands only");
            let ran = folder.run_words(arguments);
            commands += 1;
            let output = format!("{}{}", ran.out, ran.err);
            if ran.code != Some(shown.code) {
                wrong += &format!("{page}: `{line}` ends with {:?}, not {}:\n{output}\n", ran.code, shown.code);
            }
            let told = format!("{}\n{}", ran.err, ran.out);
            if let (Some(line), Some(_)) = (missing(&shown, &output), missing(&shown, &told)) {
                wrong += &format!("{page}: `{}` doesn't print `{line}`:\n{output}\n", shown.words.join(" "));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(commands > 15, "{commands}");
}
