//! `shiftwise strategy`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;
use shiftwise::reports::StrategyChanges;
use shiftwise_formats as format;
use shiftwise_graph::error::Error;
use shiftwise_quant::strategy::{BUILT_IN, Strategy};

use crate::outcome::Outcome;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a built-in strategy as the vendor's tool dumps it
    Dump {
        /// Name of the strategy
        #[arg(default_value = "pof2s", value_name = "NAME")]
        name: String,
        /// Write to a file instead
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// 0: the user's settings; 1: the pipelines too; 2: everything
        // The name and the type are those of the option of every command, which this one replaces.
        #[arg(short, long, default_value_t = 0, num_args = 0..=1, default_missing_value = "1", value_name = "0|1|2")]
        verbose: u8,
    },
    /// Check a strategy file, and list where it departs from the built-in strategy
    Check {
        /// A whole strategy, or a custom one with overrides and additions
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The strategy that it changes
        #[arg(long, default_value = "pof2s", value_name = "NAME")]
        strategy: String,
    },
}

/// The JSON of a strategy file.
pub(crate) fn read(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    format::json(&text)
        .map_err(|e| Error::format(path, format!("fail to load the json file, please check the format: it {e}")))
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    match &args.action {
        Action::Dump { name, output, verbose } => {
            let text = Strategy::built_in(name)?.dump(u32::from(*verbose));
            match output {
                Some(path) => {
                    format::write_file(path, text.as_bytes())?;
                    screen.say(format!("{name} in {}", path.display()));
                }
                None => screen.lines(&text),
            }
            let json = serde_json::from_str(&text).unwrap_or(Value::Null);
            Outcome::done(json)
        }
        Action::Check { file, strategy } => {
            let json = read(file)?;
            let changed = |name: &str| {
                let default = Strategy::built_in(name)?;
                let mut own = default.clone();
                own.update(&json)?;
                Ok::<_, Error>(own.changes(&default))
            };
            // A dump of another strategy is one that departs less from it.
            let departs = |name: &str| changed(name).ok().map(|changes| changes.len());
            let other = |own: usize| {
                let names = BUILT_IN.iter().filter_map(|base| base.names.first());
                let known = names.filter(|name| *name != strategy).filter_map(|name| Some((departs(name)?, *name)));
                known.min().filter(|(changes, _)| *changes < own).map(|(_, name)| name)
            };
            let changes = changed(strategy).map_err(|e| match other(usize::MAX) {
                Some(name) => Error::Options(format!("{e}; it is one of {name}'s: --strategy {name} checks it so")),
                None => e,
            })?;
            if let Some(name) = other(changes.len()) {
                screen.note(format!("it departs less from {name}: --strategy {name} checks it against that"));
            }
            let short = |v: Option<&Value>| match v {
                Some(Value::Object(_)) => "an entry".to_owned(),
                Some(v) => v.to_string(),
                None => String::new(),
            };
            let rows: Vec<Vec<String>> = changes
                .iter()
                .map(|c| {
                    let key = c.key.clone().unwrap_or_default();
                    vec![c.section.clone(), key, short(Some(&c.value)), short(c.default.as_ref())]
                })
                .collect();
            if !rows.is_empty() {
                screen.answer(&["section", "key", "value", "default"], 4, &rows);
                screen.say("");
            }
            screen.say(format!("{}: {} changes to {strategy}, all understood", file.display(), changes.len()));
            Outcome::done(StrategyChanges { strategy: strategy.clone(), changes })
        }
    }
}
