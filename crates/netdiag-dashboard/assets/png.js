// The charts as one picture: titles, legends and times drawn around the canvases as they are on screen, on the page's background, so
// that the file can be read without the page.
//
// Invariant: the picture shows what the screen shows, in its resolution.

import { colour } from "./colours.js";

const HEAD = 64;
const TITLE = 26;
const SIDE = 20;

export async function picture(charts, { title, subtitle, shading }) {
  const drawn = charts.filter((chart) => chart.canvas());
  const ratio = devicePixelRatio;
  const width = Math.max(...drawn.map((chart) => chart.canvas().width)) / ratio + 2 * SIDE;
  const height = HEAD + drawn.reduce((sum, chart) => sum + TITLE + chart.canvas().height / ratio, 0) + SIDE;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.fillStyle = colour("--card");
  ctx.fillRect(0, 0, width, height);
  ctx.textBaseline = "alphabetic";
  write(ctx, title, SIDE, 30, "600 18px system-ui, sans-serif", colour("--ink"));
  const right = SIDE + write(ctx, subtitle, SIDE, 50, "13px system-ui, sans-serif", colour("--soft")) + 24;
  ctx.fillStyle = colour("--anomaly-span");
  ctx.fillRect(right, 39, 18, 13);
  ctx.strokeStyle = colour("--retrans");
  ctx.lineWidth = 1;
  ctx.strokeRect(right + 0.5, 39.5, 17, 12);
  write(ctx, shading, right + 24, 50, "13px system-ui, sans-serif", colour("--soft"));
  let top = HEAD;
  for (const chart of drawn) {
    const heading = chart.unit ? `${chart.title()} (${chart.unit()})` : chart.title();
    let left = SIDE + write(ctx, heading, SIDE, top + 17, "600 13px system-ui, sans-serif", colour("--ink")) + 20;
    for (const series of chart.series) {
      ctx.strokeStyle = colour(series.colour);
      ctx.lineWidth = 2.5;
      ctx.setLineDash(series.dash ?? []);
      ctx.beginPath();
      ctx.moveTo(left, top + 13);
      ctx.lineTo(left + 18, top + 13);
      ctx.stroke();
      ctx.setLineDash([]);
      left += 24 + write(ctx, series.label(), left + 24, top + 17, "13px system-ui, sans-serif", colour("--soft")) + 16;
    }
    const source = chart.canvas();
    ctx.drawImage(source, SIDE, top + TITLE, source.width / ratio, source.height / ratio);
    top += TITLE + source.height / ratio;
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function write(ctx, text, x, y, font, fill) {
  ctx.font = font;
  ctx.fillStyle = fill;
  ctx.fillText(text, x, y);
  return ctx.measureText(text).width;
}
