//! `shiftwise completions` and `shiftwise man`: what the definition of the command line gives beside its help.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use shiftwise::reports::{Completions, ManPages};
use shiftwise_formats as format;
use shiftwise_graph::error::Error;

use crate::outcome::Outcome;
use crate::screen::Screen;

/// Where shells look for completions; behind the options of the command.
const PLACES: &str = "\
Where the script goes:
  bash        source <(shiftwise completions bash)    in ~/.bashrc, or a file in
              ~/.local/share/bash-completion/completions/shiftwise
  zsh         shiftwise completions zsh > _shiftwise  in a folder of $fpath
  fish        ~/.config/fish/completions/shiftwise.fish
  powershell  shiftwise completions powershell | Out-String | Invoke-Expression
  elvish      eval (shiftwise completions elvish | slurp)";

#[derive(Debug, clap::Args)]
#[command(after_help = PLACES)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages; it is made if it isn't there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints a shell's script; `command` is the definition of the command line.
pub(crate) fn completions(args: &Args, mut command: Command, screen: &Screen) -> Result<Outcome, Error> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let script = String::from_utf8(script).map_err(|e| Error::Run(e.to_string()))?;
    screen.script(script.trim_end());
    Outcome::done(Completions { shell: args.shell.to_string(), script })
}

/// Writes `shiftwise.1`, `shiftwise-quantize.1`, … into a folder.
pub(crate) fn man(args: &ManArgs, mut command: Command, screen: &Screen) -> Result<Outcome, Error> {
    command.build();
    let mut pages = Vec::new();
    pages_of(&command, "", &mut pages)?;
    std::fs::create_dir_all(&args.dir).map_err(Error::io(&args.dir))?;
    for (name, text) in &pages {
        format::write_file(&args.dir.join(name), text)?;
    }
    let example = args.dir.join("shiftwise-quantize.1");
    screen.say(format!("{} pages in {}; `man {}` shows one", pages.len(), args.dir.display(), shown(&example)));
    Outcome::done(ManPages { output_dir: args.dir.clone(), pages: pages.into_iter().map(|(name, _)| name).collect() })
}

/// A path as `man` takes it for a file and not for a page's name: with a slash.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains('/') { text } else { format!("./{text}") }
}

/// The pages of a command and of those below it: names of files and texts.
fn pages_of(command: &Command, above: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    let name = if above.is_empty() { command.get_name().to_owned() } else { format!("{above}-{}", command.get_name()) };
    // The usage keeps its blanks, and the page's title has none.
    let page = Man::new(command.clone().disable_help_subcommand(true))
        .title(&name)
        .source(concat!("shiftwise ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text).map_err(|e| Error::Run(format!("{name}.1: {e}")))?;
    pages.push((format!("{name}.1"), text));
    let below = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    below.into_iter().try_for_each(|sub| pages_of(sub, &name, pages))
}
