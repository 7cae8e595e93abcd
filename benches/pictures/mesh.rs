//! The picture of the mesh in the README: three nodes, the keys of each, the filters that each has of the others, and a
//! client whose GET takes one query to one node. The coordinates are fixed numbers.

use super::svg::{STYLE, text};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 430.0;
const QUERY: &str = "#d9730d";

/// A node: its name, position, colour, key, and its filters of the others.
struct Node {
    name: &'static str,
    x: f64,
    y: f64,
    colour: &'static str,
    key: &'static str,
    filters: [(&'static str, &'static str); 2],
}

const BOX_WIDTH: f64 = 220.0;
const BOX_HEIGHT: f64 = 112.0;

const ONE: &str = "#2b8cbe";
const TWO: &str = "#5a9e5a";
const THREE: &str = "#9065b0";

const NODES: [Node; 3] = [
    Node {
        name: "node 1",
        x: 320.0,
        y: 44.0,
        colour: ONE,
        key: "apple: green",
        filters: [("2", TWO), ("3", THREE)],
    },
    Node {
        name: "node 2",
        x: 60.0,
        y: 268.0,
        colour: TWO,
        key: "pear: yellow",
        filters: [("1", ONE), ("3", THREE)],
    },
    Node {
        name: "node 3",
        x: 580.0,
        y: 268.0,
        colour: THREE,
        key: "plum: blue",
        filters: [("1", ONE), ("2", TWO)],
    },
];

/// Returns the SVG file; its colours follow the reader's colour scheme.
pub fn draw() -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         {STYLE}<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" class=\"page\"/>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto-start-reverse\"><path d=\"M0 0L8 4L0 8z\" fill=\"{QUERY}\"/></marker></defs>\n"
    );
    links(&mut out);
    NODES.iter().for_each(|node| draw_node(&mut out, node));
    client(&mut out);
    let note = "Each node holds the keys that its clients set, and a filter of the keys of every other node.";
    text(&mut out, WIDTH / 2.0, HEIGHT - 14.0, "middle", "class=\"soft\"", note);
    out + "</svg>\n"
}

/// Links go both ways and carry heartbeats and changes of filters; one of them carries a query.
fn links(out: &mut String) {
    let quiet = "class=\"line\" stroke-width=\"1.4\" stroke-dasharray=\"5 4\" fill=\"none\"";
    let query = format!("stroke=\"{QUERY}\" stroke-width=\"2\" fill=\"none\" marker-end=\"url(#tip)\"");
    let _ = writeln!(out, "<path d=\"M330 156L180 268\" {quiet}/>");
    let _ = writeln!(out, "<path d=\"M530 156L680 268\" {quiet}/>");
    let _ = writeln!(out, "<path d=\"M280 346L580 346\" {quiet}/>");
    let _ = writeln!(out, "<path d=\"M280 306L578 306\" {query}/>");
    let _ = writeln!(out, "<path d=\"M580 322L282 322\" {query}/>");
    let colour = format!("fill=\"{QUERY}\"");
    text(out, 430.0, 299.0, "middle", &colour, "GET plum");
    text(out, 430.0, 338.0, "middle", &colour, "plum: blue");
    let soft = "class=\"soft\" font-size=\"12\"";
    text(out, 274.0, 212.0, "start", soft, "heartbeats, new keys");
    text(out, 616.0, 206.0, "start", soft, "heartbeats, new keys");
    text(out, 430.0, 362.0, "middle", soft, "heartbeats, new keys");
}

fn draw_node(out: &mut String, node: &Node) {
    let Node { name, x, y, colour, key, filters } = node;
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"8\" class=\"page\" \
         stroke=\"{colour}\" stroke-width=\"2\"/>"
    );
    text(out, x + 14.0, y + 24.0, "start", &format!("fill=\"{colour}\" font-weight=\"bold\""), name);
    text(out, x + 90.0, y + 24.0, "start", "", key);
    for (index, (other, colour)) in filters.iter().enumerate() {
        let top = y + 40.0 + 34.0 * if index == 0 { 0.0 } else { 1.0 };
        let what = format!("filter of {other}");
        text(out, x + 14.0, top + 16.0, "start", "class=\"soft\"", &what);
        bits(out, x + 100.0, top, colour, index);
    }
}

/// Draws a few bits; which of them are set has no meaning.
fn bits(out: &mut String, x: f64, y: f64, colour: &str, seed: usize) {
    let set = [0b01_0010_1001_u32, 0b10_0101_0010][seed % 2];
    for bit in 0..10 {
        let fill =
            if set >> bit & 1 == 1 { format!("fill=\"{colour}\"") } else { "class=\"empty\"".to_owned() };
        let at = x + 11.0 * f64::from(bit);
        let _ = writeln!(out, "<rect x=\"{at}\" y=\"{y}\" width=\"9\" height=\"22\" {fill}/>");
    }
}

/// Draws a client that reads a key of node 3 from node 2.
fn client(out: &mut String) {
    let query = format!("stroke=\"{QUERY}\" stroke-width=\"2\" fill=\"none\" marker-end=\"url(#tip)\"");
    let _ = writeln!(
        out,
        "<rect x=\"60\" y=\"60\" width=\"120\" height=\"40\" rx=\"20\" class=\"page\" stroke=\"{QUERY}\"/>"
    );
    text(out, 120.0, 85.0, "middle", "", "a client");
    let _ = writeln!(out, "<path d=\"M104 100L104 266\" {query}/>");
    let _ = writeln!(out, "<path d=\"M136 268L136 102\" {query}/>");
    let colour = format!("fill=\"{QUERY}\"");
    text(out, 96.0, 180.0, "end", &colour, "GET plum");
    text(out, 144.0, 180.0, "start", &colour, "plum: blue");
}
