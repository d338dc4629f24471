import type { ComponentType } from "preact";
import { tourStep } from "../../state/app";
import { opened } from "../../state/session";
import { t } from "../../texts";
import { steps } from "../../tour/steps";
import { Arcs } from "./Arcs";
import { Grammar } from "./Grammar";
import { Quiz } from "./Quiz";
import { Readers } from "./Readers";
import { Row } from "./Row";
import { Sum } from "./Sum";
import { Work } from "./Work";
import "./story.css";

type Name = (typeof steps)[number]["name"];

// Two steps speak of other views: here they show the sentence.
const pieces: Record<Name, ComponentType> = {
  three: Arcs,
  row: Row,
  sum: Sum,
  readers: Readers,
  grammar: Grammar,
  inside: Arcs,
  cut: Arcs,
  work: Work,
  quiz: Quiz,
};

/** The picture of the tour's step. */
export function Story() {
  const { name } = steps[tourStep.value]!;
  const Piece = pieces[name];
  if (!opened.value) return <p class="quiet">{t.value.frame.opening}</p>;
  return (
    <>
      <h2>{t.value.story.headings[name]}</h2>
      <Piece />
    </>
  );
}
