//! The curve of a training's loss, as a picture.

use super::History;

/// Size of the picture in pixels.
const SIZE: [f64; 2] = [640.0, 320.0];
/// Room around the curves.
const MARGIN: f64 = 40.0;

/// `history.svg`: the loss of every step, and of every epoch on the validation set if there is one.
pub fn svg(history: &History) -> String {
    let steps: Vec<(f64, f64)> =
        history.step_losses.iter().enumerate().map(|(i, loss)| (i as f64 + 1.0, *loss)).collect();
    let per_epoch = steps.len() as f64 / history.epochs.len().max(1) as f64;
    let validation = history.epochs.iter().filter_map(|own| Some((own.epoch as f64 * per_epoch, own.val_loss?)));
    let validation: Vec<(f64, f64)> = validation.collect();
    let losses = || steps.iter().chain(&validation).map(|(_, loss)| *loss).filter(|loss| loss.is_finite());
    let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if low < high { (low, high) } else { (low.min(0.0), low.max(1.0)) };
    let right = steps.len().max(2) as f64;
    let place = |(step, loss): &(f64, f64)| {
        let x = MARGIN + (step - 1.0) / (right - 1.0) * (SIZE[0] - 2.0 * MARGIN);
        let y = SIZE[1] - MARGIN - (loss - low) / (high - low) * (SIZE[1] - 2.0 * MARGIN);
        format!("{x:.1},{y:.1}")
    };
    let line = |points: &[(f64, f64)], colour: &str| {
        let points: Vec<String> = points.iter().filter(|(_, loss)| loss.is_finite()).map(place).collect();
        format!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\n", points.join(" "))
    };
    let text = |x: f64, y: f64, text: &str| {
        format!("<text x=\"{x}\" y=\"{y}\" font-size=\"12\" fill=\"gray\">{text}</text>\n")
    };
    let [width, height] = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n"
    );
    svg += &line(&steps, "#4477aa");
    svg += &line(&validation, "#ee6677");
    svg += &text(4.0, MARGIN - 8.0, &format!("loss {high:.4}"));
    svg += &text(4.0, height - MARGIN + 16.0, &format!("{low:.4}"));
    svg += &text(width - 110.0, height - 8.0, &format!("{} steps", steps.len()));
    svg + "</svg>\n"
}
