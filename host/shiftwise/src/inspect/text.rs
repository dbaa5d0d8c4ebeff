//! The text of an inspection, line for line as the vendor's inspector writes it.

use super::python::pformat;
use super::verdict::{DPU, INPUT, Inspection, LayerVerdict};

/// Characters of a line, and of the columns of the table of layers.
const WIDTH: usize = 120;
const COLUMNS: [usize; 5] = [12, 24, 24, 12, 48];

/// What is said instead of a list of notes.
const ALL_ON_DPU: &str = "\n  All layers are supported and successfully mapped to DPU.";

/// Text cut into lines of at most `width` characters: between words, and inside a word that is longer than a line.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let length = |s: &str| s.chars().count();
    for word in text.split_whitespace() {
        let mut word = word;
        let gap = usize::from(!line.is_empty());
        if length(&line) + gap + length(word) <= width {
            if gap == 1 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if length(word) <= width {
            lines.push(std::mem::replace(&mut line, word.to_owned()));
            continue;
        }
        // A long word begins where there is room.
        while !word.is_empty() {
            let gap = usize::from(!line.is_empty());
            let room = width.saturating_sub(length(&line) + gap);
            if room == 0 {
                lines.push(std::mem::take(&mut line));
                continue;
            }
            if gap == 1 {
                line.push(' ');
            }
            let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
            line.push_str(&word[..cut]);
            word = &word[cut..];
            if !word.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// The lines of a row of the table.
fn row(cells: [&str; 5]) -> Vec<String> {
    let columns: Vec<Vec<String>> = cells.iter().zip(COLUMNS).map(|(cell, width)| wrap(cell, width)).collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(1);
    let line = |i: usize| {
        let cell = |(column, width): (&Vec<String>, usize)| {
            let text = column.get(i).map_or("", String::as_str);
            format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
        };
        columns.iter().zip(COLUMNS).map(cell).collect::<String>()
    };
    (0..height).map(line).collect()
}

/// `Conv2D<relu>`: the class, and the activation of a layer that has the setting.
fn kind(layer: &LayerVerdict) -> String {
    match &layer.activation {
        Some(function) => format!("{}<{function}>", layer.class),
        None => layer.class.clone(),
    }
}

fn without_dots(note: &str) -> &str {
    note.trim_matches('.')
}

/// Notes as one line: as the table, the plot and its tooltips have them.
pub(super) fn notes(layer: &LayerVerdict) -> String {
    layer.notes.iter().map(|note| without_dots(note)).collect::<Vec<_>>().join("; ")
}

/// How often each word stands in a list, in the order of first appearance, each followed by a blank.
fn counted(words: impl Iterator<Item = String>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for word in words {
        match counts.iter_mut().find(|(own, _)| *own == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    counts.iter().map(|(word, count)| format!("{word}({count}) ")).collect()
}

/// The lines that the vendor's inspector shows; `verbose` adds the notes of layers on the DPU.
pub(super) fn summary(inspection: &Inspection, verbose: bool) -> Vec<String> {
    let (thin, thick, dashes) = ("_".repeat(WIDTH), "=".repeat(WIDTH), "-".repeat(WIDTH));
    let last = inspection.layers.len().saturating_sub(1);
    let told = |layer: &LayerVerdict| verbose || layer.device != DPU;
    let mut lines = vec!["[MODEL INFO]:".into(), thin.clone(), format!("Model Name: {}", inspection.model), thin];
    lines.extend(row(["ID", "Name", "Type", "Device", "Notes"]));
    lines.push(thick.clone());
    for (i, layer) in inspection.layers.iter().enumerate() {
        let notes = if told(layer) { notes(layer) } else { String::new() };
        lines.extend(row([&format!("{i}/{last}"), &layer.layer, &kind(layer), &layer.device, &notes]));
        lines.push(dashes.clone());
    }
    let all = inspection.layers.iter().all(|l| l.device == INPUT || l.device == DPU);
    lines.push(thick.clone());
    lines.push("[SUMMARY INFO]:".into());
    lines.push(format!("- [Target Name]: {}", inspection.target.as_deref().unwrap_or("None")));
    lines.push(format!("- [Total Layers]: {}", inspection.layers.len()));
    lines.push(format!("- [Layer Types]: {}", counted(inspection.layers.iter().map(kind))));
    lines.push(format!("- [Partition Results]: {}", counted(inspection.layers.iter().map(|l| l.device.clone()))));
    if all {
        lines.push(ALL_ON_DPU.into());
    }
    lines.push(thick.clone());
    lines.push("[NOTES INFO]:".into());
    for (i, layer) in inspection.layers.iter().enumerate().filter(|(_, l)| told(l) && !l.notes.is_empty()) {
        let (name, kind, device) = (&layer.layer, kind(layer), &layer.device);
        lines.push(format!("- [{i}/{last}] Layer {name} (Type:{kind}, Device:{device}):"));
        lines.extend(layer.notes.iter().map(|note| format!("    * {}", without_dots(note))));
    }
    if all {
        lines.push(ALL_ON_DPU.into());
    }
    lines.push(thick);
    lines
}

/// The text file of an inspection.
pub(super) fn file(inspection: &Inspection, verbose: bool) -> String {
    let mut lines = summary(inspection, verbose);
    lines.push("\nDetailed Model Info: \n".into());
    for (i, layer) in inspection.layers.iter().enumerate() {
        lines.push(format!("Layer ID: {i}"));
        lines.push(format!("Layer Name: {}", layer.layer));
        lines.push(format!("Layer Type: {}", layer.class));
        lines.push(format!("Device: {}", layer.device));
        lines.push("Notes: ".into());
        if layer.notes.is_empty() {
            lines.push("    None".into());
        }
        lines.extend(layer.notes.iter().enumerate().map(|(n, note)| format!("    {}. {note}", n + 1)));
        lines.push("Layer Config:".into());
        lines.push(pformat(&layer.class, &layer.config));
        lines.push("_".repeat(WIDTH));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_at_the_column_and_sentences_between_words() {
        assert_eq!(wrap("global_average_pooling2d_1", 24), ["global_average_pooling2d", "_1"]);
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("ab cdefghij k", 4), ["ab c", "defg", "hij", "k"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
