// What a figure shows, as an SVG of its own: texts, boxes, drawings and pixels where the browser has put them.

const svgNames = "http://www.w3.org/2000/svg";

const margin = 12;

/** What no XML file may hold, escaped or not. */
const unwritable = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;

/** What is there to be pressed, and no part of the picture. */
const controls = "button.plain, select, input, textarea, label:has(input, select), .buttons, .map-bar, .hidden";

/** What a drawing's own style sheet says of its parts, as it came out. */
const drawnBy = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-opacity", "opacity", "vector-effect",
  "paint-order", "font-family", "font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline",
];

export class Drawing {
  private readonly body = document.createElementNS(svgNames, "g");
  private right = 0;
  private bottom = 0;
  private readonly origin: DOMRect;
  private readonly measure = document.createElement("canvas").getContext("2d")!;

  constructor(figure: HTMLElement) {
    this.origin = figure.getBoundingClientRect();
    this.element(figure);
  }

  /** The file's text. */
  svg(title: string): string {
    const width = Math.ceil(this.right) + 2 * margin;
    const height = Math.ceil(this.bottom) + 2 * margin;
    const whole = made("svg", { width, height, viewBox: `${-margin} ${-margin} ${width} ${height}` });
    whole.append(made("title", {}, title), made("rect", { x: -margin, y: -margin, width, height, fill: getComputedStyle(document.documentElement).getPropertyValue("--paper") }), this.body);
    return new XMLSerializer().serializeToString(whole).replace(unwritable, "\ufffd");
  }

  /** The same as pixels, `scale` of them to one of the page's. */
  async png(title: string, scale = 2): Promise<Blob> {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(this.svg(title))}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = scale * image.width;
    canvas.height = scale * image.height;
    canvas.getContext("2d")!.drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done, failed) =>
      canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error(`${canvas.width} × ${canvas.height} pixels are too many`))), "image/png"),
    );
  }

  /** A rectangle of the page as the drawing counts, and room for it. */
  private place({ left, top, width, height }: DOMRect): { x: number; y: number; width: number; height: number } {
    const x = left - this.origin.left;
    const y = top - this.origin.top;
    this.right = Math.max(this.right, x + width);
    this.bottom = Math.max(this.bottom, y + height);
    return { x, y, width, height };
  }

  private element(element: Element): void {
    const style = getComputedStyle(element);
    if (style.display === "none" || style.visibility === "hidden" || element.matches(controls)) return;
    const rect = element.getBoundingClientRect();
    if (element instanceof SVGSVGElement) {
      const copy = styled(element);
      for (const [name, value] of Object.entries(this.place(rect))) copy.setAttribute(name, String(value));
      copy.setAttribute("overflow", "visible");
      this.body.append(copy);
      return;
    }
    if (element instanceof HTMLCanvasElement) {
      if (element.width * element.height === 0) return;
      const image = made("image", { ...this.place(rect), href: element.toDataURL(), preserveAspectRatio: "none" });
      image.style.imageRendering = style.imageRendering;
      this.body.append(image);
      return;
    }
    this.box(rect, style);
    for (const child of element.childNodes) {
      if (child instanceof Element) this.element(child);
      else if (child instanceof Text) this.text(child, style, element);
    }
  }

  /** An element's ground and border. */
  private box(rect: DOMRect, style: CSSStyleDeclaration): void {
    const seen = (colour: string): boolean => !/, 0\)$|^transparent$/.test(colour);
    const place = this.place(rect);
    const rx = parseFloat(style.borderTopLeftRadius) || 0;
    if (seen(style.backgroundColor)) this.body.append(made("rect", { ...place, rx, fill: style.backgroundColor }));
    const sides = (["Top", "Right", "Bottom", "Left"] as const).map((side) => ({
      width: style[`border${side}Style`] === "none" ? 0 : parseFloat(style[`border${side}Width`]) || 0,
      colour: style[`border${side}Color`],
    }));
    const [top, right, bottom, left] = sides as [Side, Side, Side, Side];
    const line = (x1: number, y1: number, x2: number, y2: number, { width, colour }: Side): void => {
      if (width > 0 && seen(colour)) this.body.append(made("line", { x1, y1, x2, y2, stroke: colour, "stroke-width": width }));
    };
    const { x, y, width, height } = place;
    if (sides.every((side) => side.width === top.width && side.colour === top.colour)) {
      if (top.width === 0 || !seen(top.colour)) return;
      const half = top.width / 2;
      const dash = style.borderTopStyle === "dashed" ? { "stroke-dasharray": `${3 * top.width} ${2 * top.width}` } : {};
      this.body.append(made("rect", {
        x: x + half, y: y + half, width: Math.max(0, width - top.width), height: Math.max(0, height - top.width), rx,
        fill: "none", stroke: top.colour, "stroke-width": top.width, ...dash,
      }));
      return;
    }
    line(x, y, x + width, y, top);
    line(x + width, y, x + width, y + height, right);
    line(x, y + height, x + width, y + height, bottom);
    line(x, y, x, y + height, left);
  }

  /** One text for each line that the words stand on. */
  private text(node: Text, style: CSSStyleDeclaration, parent: Element): void {
    const range = document.createRange();
    const lines: Line[] = [];
    for (const { 0: word, index } of node.data.matchAll(/\S+/g)) {
      range.setStart(node, index);
      range.setEnd(node, index + word.length);
      const rect = range.getBoundingClientRect();
      const last = lines.at(-1);
      if (last && Math.abs(last.rect.top - rect.top) < 2) {
        last.text += ` ${word}`;
        last.rect = new DOMRect(last.rect.left, last.rect.top, rect.right - last.rect.left, rect.height);
      } else if (rect.width > 0) {
        lines.push({ text: word, rect });
      }
    }
    this.measure.font = `${style.fontStyle} ${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    for (const line of lines) {
      const { text, rect } = style.textOverflow === "ellipsis" ? this.cut(line, parent.getBoundingClientRect().right) : line;
      const { x, y, width } = this.place(rect);
      // A line's box is as high as the font: the letters stand on what its ascent leaves.
      const baseline = y + this.measure.measureText(text).fontBoundingBoxAscent;
      const element = made("text", {
        x, y: baseline, fill: style.color, textLength: width, lengthAdjust: "spacingAndGlyphs",
        "font-family": style.fontFamily, "font-size": style.fontSize, "font-weight": style.fontWeight, "font-style": style.fontStyle,
      }, text);
      this.body.append(element);
    }
  }

  /** As much of a line as ends before `right`, like the browser with an ellipsis. */
  private cut({ text, rect }: Line, right: number): Line {
    if (rect.right <= right) return { text, rect };
    const room = right - rect.left;
    let kept = [...text];
    let width = Infinity;
    while (kept.length > 0 && width > room) {
      kept = kept.slice(0, -1);
      width = this.measure.measureText(`${kept.join("")}…`).width;
    }
    return { text: `${kept.join("")}…`, rect: new DOMRect(rect.left, rect.top, Math.min(width, room), rect.height) };
  }
}

interface Line {
  text: string;
  rect: DOMRect;
}

interface Side {
  width: number;
  colour: string;
}

function made(name: string, attributes: Record<string, string | number>, text?: string): SVGElement {
  const element = document.createElementNS(svgNames, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, typeof value === "number" ? String(Math.round(100 * value) / 100) : value);
  }
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A copy that looks the same where the page's style sheet is not. */
function styled(element: SVGElement): SVGElement {
  const copy = element.cloneNode(false) as SVGElement;
  for (const name of ["class", "style", "role", "tabindex", "aria-label", "aria-hidden", "aria-pressed"]) copy.removeAttribute(name);
  const style = getComputedStyle(element);
  for (const name of drawnBy) copy.setAttribute(name, style.getPropertyValue(name));
  for (const child of element.childNodes) {
    if (child instanceof SVGElement) {
      if (getComputedStyle(child).display !== "none") copy.append(styled(child));
    } else if (child instanceof Text) {
      copy.append(child.data);
    }
  }
  return copy;
}
