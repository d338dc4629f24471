// What a scan says of the heads, where one of the same model is open beside the text.
import { scan as askScan, type ScanHead } from "../../engine/corpus";
import type { HeadScores, Trace } from "../../engine/questions";
import { who } from "../../state/session";
import { useAnswer, type Asked } from "../../ui/useAnswer";
import { rolesFrom } from "./state";

export interface Scanned {
  passages: number;
  of(layer: number, head: number): ScanHead | undefined;
}

/** null: there is no such scan. */
export function useScanned(trace: Trace): Asked<Scanned> | null {
  const open = who.value?.scans?.find(({ model }) => model === trace.model);
  const asked = useAnswer(
    open
      ? async (engine, options) => {
          const { heads, passages } = await askScan(engine, open.id, options);
          const named = new Map(heads.map((head) => [`${head.layer}.${head.head}`, head]));
          return { passages, of: (layer: number, head: number) => named.get(`${layer}.${head}`) };
        }
      : null,
    [open?.id],
  );
  return open ? asked : null;
}

export const scannedNow = (asked: Asked<Scanned> | null): Scanned | null => (asked?.state === "ready" ? asked.value : null);

/** The scan, where roles are its. */
export const chosenScan = (scanned: Scanned | null): Scanned | null => (rolesFrom.value === "scan" ? scanned : null);

/** The heads of the text with the roles that they have over the scan. */
export const withRoles = (heads: HeadScores[], scanned: Scanned | null): HeadScores[] =>
  scanned ? heads.map((each) => ({ ...each, roles: scanned.of(each.layer, each.head)?.roles ?? [] })) : heads;
