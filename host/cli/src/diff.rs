//! `shiftwise diff`.

use std::path::PathBuf;

use serde_json::Value;
use shiftwise::diff::{Difference, diff, layers};
use shiftwise_formats::LoadOptions;
use shiftwise_graph::error::Error;

use crate::data::{Custom, Preprocess};
use crate::noise::db;
use crate::outcome::Outcome;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A quantized model, a strategy (.json) or a compiled program (.swm)
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another one of the same kind
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Data on which layers of two models are compared; [NAME=]DATA, once per input
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,
    /// Samples at most of it
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::outcome::positive())]
    samples: usize,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
    #[command(flatten)]
    custom: Custom,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let options = LoadOptions { custom: args.custom.layers()?, ..LoadOptions::default() };
    let (mut difference, models) = diff(&args.a, &args.b, &options)?;
    match &models {
        Some(models) if !args.data.is_empty() => {
            let data = args.preprocess.for_quantized(&args.data, &models[0], screen)?;
            difference.layers = layers(models, &data, args.samples)?;
        }
        None if !args.data.is_empty() => {
            return Err(Error::Options(format!("--data is for quantized models, not for {}", difference.kind)));
        }
        Some(_) | None => {}
    }
    show(&difference, screen);
    let equal = difference.equal;
    Outcome::of(difference, equal)
}

fn show(difference: &Difference, screen: &Screen) {
    let text = |value: &Option<Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => {
            let text = other.to_string();
            if text.chars().count() > 30 { format!("{}…", text.chars().take(29).collect::<String>()) } else { text }
        }
    };
    let change = |change: Option<f64>| change.map_or_else(String::new, |c| format!("{c:+}"));
    let rows: Vec<Vec<String>> =
        difference.rows.iter().map(|r| vec![r.what.clone(), text(&r.a), text(&r.b), change(r.change)]).collect();
    if !rows.is_empty() {
        screen.answer(&["what", "A", "B", "change"], 1, &rows);
        screen.say("");
    }
    let rows: Vec<Vec<String>> = difference
        .layers
        .iter()
        .map(|l| {
            vec![l.layer.clone(), db(l.a_db), db(l.b_db), l.change_db.map_or_else(String::new, |c| format!("{c:+.1}"))]
        })
        .collect();
    if !rows.is_empty() {
        screen.answer(&["layer", "A dB", "B dB", "change"], 1, &rows);
        screen.say("");
    }
    let count = difference.rows.len();
    screen.say(match difference.equal {
        true => format!("the {} do not differ", difference.kind),
        false => format!("the {} differ in {count} {}", difference.kind, if count == 1 { "value" } else { "values" }),
    });
}
