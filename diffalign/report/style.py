"""Style and read-out script, carried inside the page: it opens without a network, light or dark, wide or narrow."""

from __future__ import annotations

__all__ = ["READ_OUT", "STYLE"]

STYLE = """
:root { color-scheme: light dark;
  --paper: #f7f7f5; --sheet: #ffffff; --ink: #1d1f23; --soft: #656a73; --rule: #e7e7e3; --edge: #dededa;
  --good: #1b7f50; --bad: #bf3434; --open: #656a73; --note: #fff6e0; --note-edge: #e5c67a;
  --line-1: #2a6fdb; --line-2: #d9661f; --line-3: #1e8a5b; --line-4: #8a4fd0; --line-5: #c93a6e; --line-6: #1a8a99; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #131417; --sheet: #1b1d21; --ink: #e8e9eb; --soft: #9aa0aa; --rule: #2a2d33; --edge: #303339;
  --good: #55c48f; --bad: #f08080; --open: #9aa0aa; --note: #2a2415; --note-edge: #6b5a2a;
  --line-1: #6ea3f5; --line-2: #f0985a; --line-3: #4fc191; --line-4: #b58af0; --line-5: #f07fa6; --line-6: #4fbccb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 2px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 40px 0 2px; }
h2 + p { margin: 0 0 12px; }
p, .hint, .overline { color: var(--soft); }
.overline { font-size: 12px; letter-spacing: .08em; text-transform: uppercase; }
.sheet, .panel, .card { background: var(--sheet); border: 1px solid var(--edge); border-radius: 10px; }
.hero { display: flex; flex-wrap: wrap; gap: 20px 48px; align-items: center; padding: 22px 24px; margin-top: 20px; }
.hero .label { color: var(--soft); font-size: 13px; }
.hero .from { color: var(--soft); }
.hero .scores { font-size: 44px; font-weight: 650; line-height: 1.15; letter-spacing: -.01em; white-space: nowrap; }
.hero .change { font-size: 19px; font-weight: 600; line-height: 1.4; }
.hero .good { color: var(--good); } .hero .bad { color: var(--bad); }
.tiles { display: flex; flex-wrap: wrap; gap: 1px; margin-top: 12px;
  background: var(--edge); overflow: hidden; }
.tiles div { flex: 1 1 120px; white-space: nowrap; background: var(--sheet); padding: 12px 16px; }
.tiles b { display: block; font-size: 19px; font-weight: 600; }
.tiles span { color: var(--soft); font-size: 12.5px; }
.note { background: var(--note); border: 1px solid var(--note-edge); border-radius: 10px;
  padding: 10px 16px; margin-top: 12px; }
.note ul { margin: 2px 0; padding-left: 18px; overflow-wrap: anywhere; }
.grid { display: grid; gap: 14px; margin-top: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); }
.grid.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
figure { margin: 0; min-width: 0; }
.panel { padding: 12px 14px 8px; display: flex; flex-direction: column; justify-content: space-between; }
figcaption { font-size: 13.5px; line-height: 1.4; margin-bottom: 8px; overflow-wrap: anywhere; }
figcaption b { display: block; font-weight: 600; }
.hint { font-size: 12.5px; } figcaption .hint, th .hint { display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 12.5px; color: var(--soft); margin-top: 2px; }
.chip { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.chip.line, .chip.faint { height: 3px; width: 14px; vertical-align: middle; } .chip.faint { opacity: .4; }
.chip.dots { border-radius: 50%; width: 8px; height: 8px; } .chip + .chip { margin-left: -4px; }
svg { display: block; } .chart { width: 100%; height: auto; touch-action: pan-y; overflow: visible; }
.chart path { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.chart path.faint { opacity: .38; stroke-width: 1; } .mark { stroke: var(--sheet); stroke-width: 1.2; }
.rule { stroke: var(--rule); stroke-width: 1; } .cursor { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.tick { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; } .power { font-size: 8.5px; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.scroll { overflow-x: auto; margin-top: 12px; width: fit-content; min-width: min(100%, 420px); max-width: 100%; }
.scroll.full { width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 500; font-size: 12.5px; border-top: 0; padding-top: 10px; }
th:first-child { text-align: left; font-weight: 500; } .drawn { width: 210px; padding-left: 6px; }
th .hint { font-weight: 400; }
tr.total th, tr.total td { font-weight: 650; } .best { font-weight: 650; }
td.good { color: var(--good); } td.bad { color: var(--bad); }
.forest { margin-left: auto; } .forest .none { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2; }
.forest .span { stroke: var(--open); stroke-width: 3; stroke-linecap: round; opacity: .55; }
.forest .gain { fill: var(--open); }
.forest.good .span { stroke: var(--good); } .forest.good .gain { fill: var(--good); }
.forest.bad .span { stroke: var(--bad); } .forest.bad .gain { fill: var(--bad); }
.card { padding: 12px 14px 14px; } .strip { display: flex; gap: 10px; align-items: center; margin-top: 6px; }
.strip .tag { flex: 0 0 44px; font-size: 12.5px; color: var(--soft); } 
.strip img { min-width: 0; flex: 0 1 auto; max-width: 100%; }
.grid.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 236px), 1fr)); }
.pairs .card { display: flex; flex-direction: column; justify-content: space-between; }
.pairs .strips { display: flex; gap: 8px; }
.pairs .strip { flex-direction: column-reverse; gap: 2px; margin: 0; min-width: 0; }
.pairs .strip .tag { flex: none; }
.rows { display: grid; gap: 14px; margin-top: 12px; }
.bars { margin-top: 12px; overflow-x: auto; } .bars .chart { min-width: 560px; } .bars .name { font-size: 12px; }
.whisker { stroke: var(--ink); stroke-width: 1.2; opacity: .7; }
.cards { display: grid; gap: 14px; margin-top: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); }
.cards .strip { flex-direction: column; align-items: flex-start; gap: 2px; }
.cards .strip .tag { flex: none; overflow-wrap: anywhere; }
h3 { font-size: 14px; margin: 22px 0 0; } .facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.timeline { display: flex; flex-wrap: wrap; gap: 10px; } .timeline div { display: grid; gap: 2px; min-width: 0; }
.timeline .tag { font-size: 12.5px; color: var(--soft); } .timeline img { max-width: 100%; height: auto; }
details { padding: 10px 16px; margin-top: 12px; } summary { cursor: pointer; }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, Consolas, monospace; margin: 8px 0 4px; }
#readout { position: fixed; pointer-events: none; z-index: 2; white-space: pre; color: var(--paper);
  background: var(--ink); border-radius: 6px; padding: 5px 9px;
  font-size: 12px; line-height: 1.45; font-variant-numeric: tabular-nums; }
@media (max-width: 560px) { main { padding: 20px 12px 48px; } .hero { padding: 16px; }
  .hero .scores { font-size: 36px; }
  th, td { padding: 6px 5px; } th:first-child { padding-left: 10px; } :is(th, td):last-child { padding-right: 10px; }
  .roomy { display: none; } table { font-size: 13px; }
  .large .tick { font-size: 15px; } .large path { stroke-width: 2.4; } }
"""

READ_OUT = """
(() => {
  const box = document.createElement("div"); box.id = "readout"; box.hidden = true; document.body.append(box);
  const near = (points, step) => points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
  for (const svg of document.querySelectorAll("svg.chart")) {
    const [first, last, left, right] = JSON.parse(svg.dataset.x), lines = JSON.parse(svg.dataset.lines);
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor"); cursor.setAttribute("y1", 12); cursor.setAttribute("y2", height - 20);
    svg.addEventListener("pointermove", event => {
      const frame = svg.getBoundingClientRect(), at = (event.clientX - frame.left) / frame.width * width;
      const wanted = first + (at - left) / (right - left) * (last - first);
      const step = near(lines.map(([, points]) => near(points, wanted)), wanted)[0];
      const place = left + (step - first) / (last - first) * (right - left);
      cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); svg.append(cursor);
      const rows = lines.map(([name, points]) => [name, near(points, step)])
        .filter(([, point]) => Math.abs(point[0] - step) <= (last - first) / 20)
        .map(([name, point]) => `${name}  ${point[1]}`);
      box.textContent = [`step ${step}`, ...rows].join("\\n");
      box.hidden = false;
      const limit = document.documentElement.clientWidth - box.offsetWidth - 8;
      box.style.left = Math.max(8, Math.min(event.clientX + 14, limit)) + "px";
      box.style.top = Math.max(8, event.clientY - box.offsetHeight - 12) + "px";
    });
    svg.addEventListener("pointerleave", () => { box.hidden = true; cursor.remove(); });
  }
})();
"""
