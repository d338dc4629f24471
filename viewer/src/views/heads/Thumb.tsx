// A head, small: its weights as a picture, its name, its roles.
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Thumbnails } from "../../engine/heads";
import type { HeadScores } from "../../engine/questions";
import { palette } from "../../maps/palette";
import { largestOf, paint } from "../../maps/ramp";
import { dark } from "../../state/app";
import { grouped, t } from "../../texts";
import type { Scanned } from "./scanned";

export function Picture({ thumbnails, layer, head }: { thumbnails: Thumbnails; layer: number; head: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const isDark = dark.value;
  useLayoutEffect(() => {
    const values = thumbnails.of(layer, head);
    const context = canvas.current!.getContext("2d")!;
    const image = context.createImageData(thumbnails.keys, thumbnails.rows);
    const scale = { largest: largestOf(values), root: true, signed: false };
    paint(values, palette(isDark, false).ramp, scale, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
  }, [thumbnails, layer, head, isDark]);
  return <canvas ref={canvas} class="thumb-picture" width={thumbnails.keys} height={thumbnails.rows} aria-hidden="true" />;
}

/** Roles that most heads have: they stand behind the others. */
const common = new Set(["sink", "first"]);

/** `scan`: whose roles they are, instead of the text's. `most`: so many are written, and how many more there are. */
export function Badges({ roles, scan, most = roles.length }: { roles: string[]; scan: Scanned | null; most?: number }) {
  const texts = t.value.heads;
  const ordered = [...roles.filter((role) => !common.has(role)), ...roles.filter((role) => common.has(role))];
  return (
    <>
      {ordered.slice(0, most).map((role) => (
        <span
          class={["badge", scan ? "" : "from-text", common.has(role) ? "common" : ""].join(" ")}
          title={scan ? texts.fromScan(role, grouped(scan.passages)) : texts.fromText(role)}
        >
          {role}
        </span>
      ))}
      {ordered.length > most && <span class="quiet">+{ordered.length - most}</span>}
    </>
  );
}

export interface ThumbProps {
  scores: HeadScores;
  /** Whether its roles are known. */
  read: boolean;
  /** The scan that the roles come from; null: the text. */
  scan: Scanned | null;
  thumbnails: Thumbnails | null;
  pressed: boolean;
  tabbable: boolean;
  /** The number that the heads are sorted by. */
  value?: string | undefined;
  onPress: () => void;
}

export function Thumb({ scores: { layer, head, roles }, read, scan, thumbnails, pressed, tabbable, value, onPress }: ThumbProps) {
  const texts = t.value.heads;
  const name = `${layer}.${head}`;
  return (
    <button
      type="button"
      class="thumb"
      data-head={name}
      aria-pressed={pressed}
      tabIndex={tabbable ? 0 : -1}
      onClick={onPress}
    >
      {thumbnails && <Picture thumbnails={thumbnails} layer={layer} head={head} />}
      <span class="thumb-name figure">{name}{value !== undefined && <b>{value}</b>}</span>
      <span class="badges" aria-hidden="true"><Badges roles={roles} scan={scan} most={1} /></span>
      <span class="hidden">{!read ? "" : scan ? texts.rolesScanned(roles, grouped(scan.passages)) : texts.rolesSaid(roles)}</span>
    </button>
  );
}
