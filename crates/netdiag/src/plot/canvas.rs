//! The surface that charts are drawn on, and what they have in common: font, colours, axes, units.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::axis::Axis;

/// What drawing gives: an error is the drawing library's, and a fault of the program.
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;
/// Axes with something drawn between them.
pub(super) type Chart<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<Axis, Axis>>;
/// A part of the picture.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Drawn so many times as large as shown.
const SCALE: u32 = 2;
const FONT: &str = "sans-serif";
static FONT_DATA: &[u8] = include_bytes!("../../assets/Roboto-Regular.subset.ttf");

// Okabe and Ito's colours, told apart by the colour-blind as well.
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const ORANGE: RGBColor = RGBColor(230, 159, 0);
pub(super) const VERMILLION: RGBColor = RGBColor(213, 94, 0);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(super) const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(226, 229, 234);

/// Room for the labels of the vertical axis, and of the horizontal one, pixels.
const LEFT: u32 = 78;
const BELOW: u32 = 50;

/// A picture in memory.
pub(super) struct Canvas {
    width: u32,
    height: u32,
    /// Red, green, blue; `SCALE` times as wide and high.
    pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn new((width, height): (u32, u32)) -> Self {
        let pixels = vec![255; (3 * width * height * SCALE * SCALE) as usize];
        Self { width, height, pixels }
    }

    pub(super) fn paint(&mut self, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Drawn {
        register_font(FONT, FontStyle::Normal, FONT_DATA)
            .map_err(|_| "the built-in font is damaged")?;
        let size = (self.width * SCALE, self.height * SCALE);
        let area = BitMapBackend::with_buffer(&mut self.pixels, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
        Ok(())
    }

    /// The picture as PNG.
    pub(super) fn encode(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.reduced())?;
        writer.finish()?;
        Ok(png)
    }

    /// The picture at the size it is shown: each pixel the mean of the four that it stands for.
    fn reduced(&self) -> Vec<u8> {
        const { assert!(SCALE == 2) };
        let row = 3 * (self.width * SCALE) as usize;
        let mut small = Vec::with_capacity((3 * self.width * self.height) as usize);
        for rows in self.pixels.chunks_exact(2 * row) {
            let (upper, lower) = rows.split_at(row);
            for (upper, lower) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
                for colour in 0..3 {
                    let sum = u16::from(upper[colour])
                        + u16::from(upper[colour + 3])
                        + u16::from(lower[colour])
                        + u16::from(lower[colour + 3]);
                    small.push((sum / 4) as u8);
                }
            }
        }
        small
    }
}

/// Pixels of the picture as pixels of the drawing.
pub(super) fn scaled(pixels: u32) -> u32 {
    pixels * SCALE
}

/// Text of a size in pixels of the picture.
pub(super) fn text(size: u32) -> TextStyle<'static> {
    (FONT, scaled(size)).into_font().color(&INK)
}

/// A line of a width in pixels of the picture.
pub(super) fn line(colour: RGBColor, width: u32) -> ShapeStyle {
    colour.stroke_width(scaled(width))
}

/// The line above everything.
pub(super) fn title(area: &Area<'_>, line: &str) -> Drawn {
    let style = text(26).pos(Pos::new(HPos::Left, VPos::Center));
    let (_, height) = area.dim_in_pixel();
    area.draw(&Text::new(line.to_owned(), (scaled(20) as i32, height as i32 / 2), style))?;
    Ok(())
}

/// What one panel shows, beyond its series.
pub(super) struct Panel<'p> {
    pub(super) title: Option<&'p str>,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Without, the panel below has the labels.
    pub(super) x_name: Option<String>,
    pub(super) y_name: &'p str,
}

impl Panel<'_> {
    /// Draws the axes.
    pub(super) fn chart<'a, 'b>(
        &self,
        area: &'a Area<'b>,
    ) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
        let mut builder = ChartBuilder::on(area);
        builder.margin(scaled(12)).y_label_area_size(scaled(LEFT));
        if let Some(title) = self.title {
            builder.caption(title, text(21));
        }
        match self.x_name {
            Some(_) => builder.x_label_area_size(scaled(BELOW)),
            None => builder.margin_bottom(0).x_label_area_size(scaled(6)),
        };
        let mut chart = builder.build_cartesian_2d(self.x.clone(), self.y.clone())?;
        let (x_label, y_label) = (|x: &f64| self.x.label(*x), |y: &f64| self.y.label(*y));
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(text(17))
            .axis_desc_style(text(18))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .y_desc(self.y_name);
        match &self.x_name {
            Some(name) => mesh.x_desc(name),
            None => mesh.x_labels(0),
        };
        mesh.draw()?;
        Ok(chart)
    }
}

/// Draws a line through points, named in the legend if it has a name.
pub(super) fn draw_line(
    chart: &mut Chart<'_, '_>,
    points: impl IntoIterator<Item = (f64, f64)>,
    style: ShapeStyle,
    name: Option<String>,
) -> Drawn {
    let points: Vec<(f64, f64)> = points.into_iter().collect();
    // Piece by piece: through a sharp bend the library draws a line with a point many times as long as the line is wide.
    let pieces = points.windows(2).map(|piece| PathElement::new(piece.to_vec(), style));
    let series = chart.draw_series(pieces)?;
    if let Some(name) = name {
        series
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + scaled(18) as i32, y)], style));
    }
    Ok(())
}

/// A piece of colour in a legend.
pub(super) fn swatch((x, y): (i32, i32), style: ShapeStyle) -> Rectangle<(i32, i32)> {
    let (half, width) = (scaled(5) as i32, scaled(18) as i32);
    Rectangle::new([(x, y - half), (x + width, y + half)], style)
}

/// Draws the legend of everything that has a name.
pub(super) fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(text(17))
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .legend_area_size(scaled(24))
        .margin(scaled(6))
        .draw()?;
    Ok(())
}
