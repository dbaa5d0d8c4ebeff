//! Layers of a drawing: boxes in rows from top to bottom, with few crossings and long edges kept straight.
//!
//! The method is Sugiyama's: rows by longest paths, a point in every row that an edge passes, orders by the mean place of
//! neighbours, then places as near to the neighbours as widths allow.

/// Blank between neighbours of a row.
const GAP: f64 = 24.0;
/// Sweeps down and up over the rows for their orders, and for the places in them.
const SWEEPS: usize = 12;

/// A box to be placed.
#[derive(Clone, Debug)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Where everything lies.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Centre and upper end of each box.
    pub(super) boxes: Vec<(f64, f64)>,
    /// The corners of each edge, from box to box.
    pub(super) edges: Vec<Vec<(f64, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A box, or the point of an edge in a row that it passes.
struct Item {
    row: usize,
    width: f64,
    up: Vec<usize>,
    down: Vec<usize>,
    x: f64,
}

/// Places boxes; edges go from earlier boxes to later ones, others are left out.
pub(super) fn lay_out(sizes: &[Size], edges: &[(usize, usize)], row_gap: f64) -> Layout {
    let edges: Vec<(usize, usize)> = edges.iter().copied().filter(|(a, b)| a < b && *b < sizes.len()).collect();
    let (mut items, chains) = items(sizes, &edges);
    let mut rows = rows(&items);
    order(&mut items, &mut rows);
    place(&mut items, &rows);
    straighten(&mut items, &rows, &chains);
    finish(sizes, &items, &rows, &chains, row_gap)
}

/// The row of each box: below all that it reads, and near what reads it where it reads nothing.
fn levels(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut level = vec![0usize; count];
    let mut sorted = edges.to_vec();
    sorted.sort_by_key(|(_, to)| *to);
    for (from, to) in &sorted {
        level[*to] = level[*to].max(level[*from] + 1);
    }
    for box_ in 0..count {
        let reads = edges.iter().any(|(_, to)| *to == box_);
        let readers = edges.iter().filter(|(from, _)| *from == box_).map(|(_, to)| level[*to]);
        if let (false, Some(first)) = (reads, readers.min()) {
            level[box_] = first.saturating_sub(1);
        }
    }
    level
}

/// Boxes and points, and the items of each edge from end to end.
fn items(sizes: &[Size], edges: &[(usize, usize)]) -> (Vec<Item>, Vec<Vec<usize>>) {
    let level = levels(sizes.len(), edges);
    let item = |row, width| Item { row, width, up: Vec::new(), down: Vec::new(), x: 0.0 };
    let mut items: Vec<Item> = sizes.iter().zip(&level).map(|(size, row)| item(*row, size.width)).collect();
    let mut chains = Vec::with_capacity(edges.len());
    for (from, to) in edges {
        let mut chain = vec![*from];
        for row in level[*from] + 1..level[*to] {
            items.push(item(row, 0.0));
            chain.push(items.len() - 1);
        }
        chain.push(*to);
        for pair in chain.windows(2) {
            items[pair[0]].down.push(pair[1]);
            items[pair[1]].up.push(pair[0]);
        }
        chains.push(chain);
    }
    (items, chains)
}

fn rows(items: &[Item]) -> Vec<Vec<usize>> {
    let count = items.iter().map(|item| item.row + 1).max().unwrap_or(0);
    let mut rows = vec![Vec::new(); count];
    for (i, item) in items.iter().enumerate() {
        rows[item.row].push(i);
    }
    rows
}

/// Orders each row by the mean place of the neighbours in the row before, down and up again.
fn order(items: &mut [Item], rows: &mut [Vec<usize>]) {
    let number = |items: &mut [Item], row: &[usize]| row.iter().enumerate().for_each(|(i, id)| items[*id].x = i as f64);
    rows.iter().for_each(|row| number(items, row));
    let count = rows.len();
    for sweep in 0..SWEEPS {
        for step in 0..count {
            let down = sweep % 2 == 0;
            let row = if down { step } else { count - 1 - step };
            let mut keyed: Vec<(f64, usize)> = rows[row]
                .iter()
                .map(|id| {
                    let item = &items[*id];
                    let near = if down { &item.up } else { &item.down };
                    (mean(items, near).unwrap_or(item.x), *id)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[row] = keyed.into_iter().map(|(_, id)| id).collect();
            number(items, &rows[row]);
        }
    }
}

fn mean(items: &[Item], ids: &[usize]) -> Option<f64> {
    (!ids.is_empty()).then(|| ids.iter().map(|id| items[*id].x).sum::<f64>() / ids.len() as f64)
}

/// Where an item wants to be: between its neighbours, nearer to boxes than to long edges, and a little to the middle, so
/// that chains of blocks with edges on one side don't drift.
fn wanted(items: &[Item], item: &Item, near: &[usize]) -> f64 {
    const BOX: f64 = 8.0;
    const PULL: f64 = 0.02;
    let weight = |id: &usize| if items[*id].width == 0.0 { 1.0 } else { BOX };
    let total: f64 = near.iter().map(weight).sum();
    let sum: f64 = near.iter().map(|id| weight(id) * items[*id].x).sum();
    let x = if total > 0.0 { sum / total } else { item.x };
    if item.width == 0.0 { x } else { x * (1.0 - PULL) }
}

/// Places that are nearest to the wanted ones with at least `apart[i]` between neighbours `i` and `i + 1`.
fn spread(wanted: &[f64], weights: &[f64], apart: &[f64]) -> Vec<f64> {
    // Without the distances the places only have to rise: neighbours that would cross share their mean.
    let mut offset = 0.0;
    let mut offsets = vec![0.0];
    for gap in apart {
        offset += gap;
        offsets.push(offset);
    }
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for ((want, weight), offset) in wanted.iter().zip(weights).zip(&offsets) {
        blocks.push((want - offset, *weight, 1));
        while let [.., a, b] = blocks[..] {
            if a.0 <= b.0 {
                break;
            }
            let weight = a.1 + b.1;
            blocks.truncate(blocks.len() - 2);
            blocks.push(((a.0 * a.1 + b.0 * b.1) / weight, weight, a.2 + b.2));
        }
    }
    let risen = blocks.iter().flat_map(|(x, _, count)| std::iter::repeat_n(*x, *count));
    risen.zip(offsets).map(|(x, offset)| x + offset).collect()
}

fn place(items: &mut [Item], rows: &[Vec<usize>]) {
    for row in rows {
        let width: f64 = row.iter().map(|id| items[*id].width + GAP).sum();
        let mut x = (GAP - width) / 2.0;
        for id in row {
            items[*id].x = x + items[*id].width / 2.0;
            x += items[*id].width + GAP;
        }
    }
    for sweep in 0..2 * SWEEPS {
        for step in 0..rows.len() {
            let down = sweep % 2 == 0;
            let row = &rows[if down { step } else { rows.len() - 1 - step }];
            let near = |item: &Item| if down { item.up.clone() } else { item.down.clone() };
            let wanted: Vec<f64> = row.iter().map(|id| wanted(items, &items[*id], &near(&items[*id]))).collect();
            // Points of edges are heavy, so that long edges are straight.
            let weights: Vec<f64> = row.iter().map(|id| if items[*id].width == 0.0 { 4.0 } else { 1.0 }).collect();
            let apart: Vec<f64> = row.windows(2).map(|p| (items[p[0]].width + items[p[1]].width) / 2.0 + GAP).collect();
            for (id, x) in row.iter().zip(spread(&wanted, &weights, &apart)) {
                items[*id].x = x;
            }
        }
    }
}

/// Puts the points of an edge below each other where there is a column that is free in all of their rows.
fn straighten(items: &mut [Item], rows: &[Vec<usize>], chains: &[Vec<usize>]) {
    for chain in chains.iter().filter(|chain| chain.len() > 3) {
        let points = &chain[1..chain.len() - 1];
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for id in points {
            let row = &rows[items[*id].row];
            let at = row.iter().position(|own| own == id).unwrap_or(0);
            let edge = |other: usize| (items[row[other]].x, items[row[other]].width / 2.0 + GAP / 2.0);
            if at > 0 {
                let (x, room) = edge(at - 1);
                low = low.max(x + room);
            }
            if at + 1 < row.len() {
                let (x, room) = edge(at + 1);
                high = high.min(x - room);
            }
        }
        if low <= high {
            let x = (points.iter().map(|id| items[*id].x).sum::<f64>() / points.len() as f64).clamp(low, high);
            points.iter().for_each(|id| items[*id].x = x);
        }
    }
}

fn finish(sizes: &[Size], items: &[Item], rows: &[Vec<usize>], chains: &[Vec<usize>], row_gap: f64) -> Layout {
    let left = items.iter().map(|item| item.x - item.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = items.iter().map(|item| item.x + item.width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let (mut tops, mut heights, mut y) = (Vec::new(), Vec::new(), 0.0);
    for row in rows {
        let height = row.iter().filter_map(|id| sizes.get(*id)).map(|s| s.height).fold(0.0, f64::max);
        tops.push(y);
        heights.push(height);
        y += height + row_gap;
    }
    let x = |id: usize| items[id].x - left;
    let boxes: Vec<(f64, f64)> = (0..sizes.len()).map(|id| (x(id), tops[items[id].row])).collect();
    let corners = |chain: &Vec<usize>| {
        let last = chain.len() - 1;
        let mut all = Vec::new();
        for (i, id) in chain.iter().enumerate() {
            let (top, row_height) = (tops[items[*id].row], heights[items[*id].row]);
            let height = sizes.get(*id).map_or(row_height, |s| s.height);
            match i {
                0 => all.push((x(*id), top + height)),
                i if i == last => all.push((x(*id), top)),
                _ => all.extend([(x(*id), top), (x(*id), top + row_height)]),
            }
        }
        all
    };
    let width = if right > left { right - left } else { 0.0 };
    Layout { boxes, edges: chains.iter().map(corners).collect(), width, height: (y - row_gap).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_a_row_do_not_touch_and_readers_stand_below() {
        let sizes: Vec<Size> = (0..9).map(|i| Size { width: 40.0 + 10.0 * f64::from(i), height: 20.0 }).collect();
        let edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (0, 6), (4, 6), (5, 6), (6, 7), (8, 8)];
        let layout = lay_out(&sizes, &edges, 30.0);
        for (a, b) in edges.iter().filter(|(a, b)| a < b) {
            assert!(layout.boxes[*a].1 + 20.0 + 30.0 <= layout.boxes[*b].1 + 1e-9, "{a} {b}");
        }
        for a in 0..sizes.len() {
            for b in 0..a {
                let apart = (layout.boxes[a].0 - layout.boxes[b].0).abs();
                let touch = (sizes[a].width + sizes[b].width) / 2.0;
                assert!(layout.boxes[a].1 != layout.boxes[b].1 || apart >= touch, "{a} {b}");
            }
        }
        assert_eq!(layout.edges.len(), 10);
    }

    /// Of two places that want to be one, each gives half; one that is far away is not moved.
    #[test]
    fn places_are_moved_as_little_as_distances_allow() {
        assert_eq!(spread(&[5.0, 5.0, 50.0], &[1.0; 3], &[10.0, 10.0]), [0.0, 10.0, 50.0]);
        assert_eq!(spread(&[0.0, 20.0], &[1.0; 2], &[10.0]), [0.0, 20.0]);
    }
}
