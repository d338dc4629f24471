// The numbers behind a map: all of a small view, the largest of a big one.
import { grouped, t } from "../texts";
import type { TableData } from "../ui/Picture";
import { seen, type Camera, type Size } from "./geometry";
import type { Store } from "./store";

const mostSide = 32;
const mostRows = 50;

export function tableOf(
  store: Store, camera: Camera, size: Size, side: number, rows: readonly string[], keys: readonly string[], figure: (value: number) => string,
): TableData {
  const texts = t.value.heads;
  const view = seen(camera, store.source.extent, size);
  const along = ([begin, end]: [number, number]): number[] => {
    const places: number[] = [];
    for (let place = Math.floor(begin / side) * side; place < end; place += side) places.push(place);
    return places;
  };
  const [down, across] = [along(view.rows), along(view.keys)];
  const nameOf = (names: readonly string[], place: number, count: number): string =>
    side === 1 ? `${names[place] ?? place}` : `${grouped(place)}–${grouped(Math.min(count, place + side) - 1)}`;
  const { extent } = store.source;
  const value = (row: number, key: number): string => {
    const found = store.at(row, key, side);
    return found === null ? "…" : figure(found);
  };
  if (down.length <= mostSide && across.length <= mostSide) {
    return {
      columns: [texts.queryKey, ...across.map((key) => nameOf(keys, key, extent.keys))],
      rows: down.map((row) => [nameOf(rows, row, extent.rows), ...across.map((key) => value(row, key))]),
    };
  }
  const largest = store.largestIn(view, side, mostRows);
  return {
    columns: [texts.queryPlace, texts.keyPlace, side === 1 ? texts.weight : texts.pooledAs(store.pool, side, store.source.signed)],
    rows: largest.map(({ row, key, value: found }) => [
      side === 1 ? `${grouped(row)} ${rows[row] ?? ""}` : nameOf(rows, row, extent.rows),
      side === 1 ? `${grouped(key)} ${keys[key] ?? ""}` : nameOf(keys, key, extent.keys),
      figure(found),
    ]),
  };
}
