//! The trials of a search as a picture: accuracy over price, and what is worth having.

use super::Tuned;

/// Size of the picture in pixels.
const SIZE: [f64; 2] = [720.0, 420.0];
/// Room around the points: left, top, right, bottom.
const ROOM: [f64; 4] = [70.0, 30.0, 30.0, 50.0];

/// A range with some room, which is never empty.
fn padded(values: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
    if !(low.is_finite() && high.is_finite()) {
        return [0.0, 1.0];
    }
    let pad = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-6);
    [low - pad, high + pad]
}

/// `pareto.svg`: a dot for each trial, the front as steps, the float network and the limit as lines, the chosen one ringed.
pub fn svg(tuned: &Tuned) -> String {
    let share = |right: u64| 100.0 * right as f64 / tuned.answers.max(1) as f64;
    let priced: Vec<(usize, f64, f64)> =
        tuned.trials.iter().filter_map(|t| Some((t.trial, t.price? as f64 / 1e3, share(t.right)))).collect();
    let float = share(tuned.float_right);
    let limit = float - 100.0 * tuned.max_drop;
    let across = padded(priced.iter().map(|p| p.1));
    let up = padded(priced.iter().map(|p| p.2).chain([float, limit]));
    let [width, height] = SIZE;
    let [left, top, right, bottom] = ROOM;
    let x = |v: f64| left + (v - across[0]) / (across[1] - across[0]) * (width - left - right);
    let y = |v: f64| height - bottom - (v - up[0]) / (up[1] - up[0]) * (height - top - bottom);
    let text = |at: [f64; 2], anchor: &str, text: &str| {
        format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>\n", at[0], at[1])
    };
    let level = |value: f64, name: &str, dash: &str, below: f64| {
        let (y, end) = (y(value), width - right);
        let line = format!("<path d=\"M{left:.1} {y:.1}H{end:.1}\" stroke=\"gray\" stroke-dasharray=\"{dash}\"/>\n");
        line + &text([end, y + below], "end", &format!("{name} {value:.2} %"))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"gray\">\n"
    );
    out += &format!(
        "<path d=\"M{left:.1} {top:.1}V{:.1}H{:.1}\" fill=\"none\" stroke=\"gray\"/>\n",
        height - bottom,
        width - right
    );
    out += &level(float, "float", "6 3", -4.0);
    out += &level(limit, "limit", "2 3", 13.0);
    let front: Vec<&(usize, f64, f64)> =
        tuned.pareto.iter().filter_map(|number| priced.iter().find(|p| p.0 == *number)).collect();
    if let Some(first) = front.first() {
        let mut path = format!("M{:.1} {:.1}", x(first.1), y(first.2));
        front.iter().skip(1).for_each(|p| path += &format!("H{:.1}V{:.1}", x(p.1), y(p.2)));
        out += &format!("<path d=\"{path}\" fill=\"none\" stroke=\"#4477aa\" stroke-width=\"1.5\"/>\n");
    }
    for (number, price, accuracy) in &priced {
        let colour = if tuned.pareto.contains(number) { "#4477aa" } else { "#bbbbbb" };
        let title = tuned.trials.get(*number).map_or_else(String::new, |t| escaped(&t.label()));
        out += &format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"><title>{number}: {title}, {accuracy:.2} %, {price:.1} \
             {}</title></circle>\n",
            x(*price),
            y(*accuracy),
            tuned.unit.short()
        );
        if *number == tuned.chosen {
            let at = [x(*price), y(*accuracy)];
            out += &format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"8\" fill=\"none\" stroke=\"#ee6677\" stroke-width=\"2\"/>\n",
                at[0], at[1]
            );
            out += &text([at[0] + 12.0, at[1] + 14.0], "start", &format!("trial {number}"));
        }
    }
    let base = height - bottom + 18.0;
    out += &text([left, base], "start", &format!("{:.1}", across[0].max(0.0)));
    out += &text([width - right, base], "end", &format!("{:.1} {}", across[1], tuned.unit.short()));
    out += &text([left - 6.0, height - bottom], "end", &format!("{:.2} %", up[0].max(0.0)));
    out += &text([left - 6.0, top + 8.0], "end", &format!("{:.2} %", up[1].min(100.0)));
    out += &text([left, top - 10.0], "start", tuned.measure.phrase());
    out + "</svg>\n"
}

/// Text of unknown origin inside an element.
fn escaped(text: &str) -> String {
    crate::text::name(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
