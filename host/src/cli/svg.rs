//! Pictures as SVG: one file with everything in it, in the colours of whoever looks.

use std::fmt::Write as _;

/// Colours by class; the reader's scheme chooses between light and dark.
const STYLE: &str = "\
svg { background: #ffffff; font: 12px system-ui, sans-serif; }
text { fill: #24292f; } .dim { fill: #6e7781; } .line { stroke: #d0d7de; }
.frame { fill: #f6f8fa; } .mark { fill: #0969da; } .gone { fill: #cf222e; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } text { fill: #e6edf3; } .dim { fill: #8b949e; }
.line { stroke: #30363d; } .frame { fill: #161b22; } .mark { fill: #4493f8; } .gone { fill: #f85149; } }";

/// Elements drawn so far.
#[derive(Default)]
pub struct Svg {
    body: String,
}

// Writing to a string does not fail.
impl Svg {
    /// Text that begins at a place.
    pub fn text(&mut self, (x, y): (f64, f64), class: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{text}</text>"#);
    }

    /// A rectangle from its upper left corner; `title` shows where a pointer rests.
    pub fn rect(&mut self, at: (f64, f64), size: (f64, f64), class: &str, opacity: f64, title: &str) {
        let ((x, y), (width, height), title) = (at, size, escaped(title));
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" class="{class}" fill-opacity="{opacity:.2}"><title>{title}</title></rect>"#
        );
    }

    /// A dot.
    pub fn dot(&mut self, (x, y): (f64, f64), title: &str) {
        let title = escaped(title);
        let _ = writeln!(
            self.body,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" class="mark"><title>{title}</title></circle>"#
        );
    }

    /// A thin line.
    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="line"/>"#
        );
    }

    /// The file.
    pub fn finish(self, width: f64, height: f64) -> String {
        let body = self.body;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let mut svg = Svg::default();
        svg.text((1.0, 2.0), "dim", "<&\">");
        let file = svg.finish(10.0, 10.0);
        assert!(file.contains(r#"<text x="1.0" y="2.0" class="dim">&lt;&amp;&quot;&gt;</text>"#), "{file}");
    }
}
