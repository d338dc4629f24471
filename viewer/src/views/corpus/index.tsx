import { t } from "../../texts";

export function Corpus() {
  const texts = t.value.corpus;
  return (
    <>
      <h2>{texts.heading}</h2>
      <p>{texts.none}</p>
    </>
  );
}
