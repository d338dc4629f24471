import { dims } from "../../engine/questions";
import { linked, whole } from "../../state/link";
import { t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { Slider } from "../../ui/Slider";
import { useAnswer } from "../../ui/useAnswer";

const dModel = linked("d", whole(1, 1 << 20), 512);
const heads = linked("h", whole(1, 64), 8);

export function Dimensions() {
  const d = dModel.value;
  const h = heads.value;
  const asked = useAnswer(
    (engine, options) => dims(engine, { d_model: d, heads: [h], tokens: 128, batch: 1, dtype: "f32" }, options),
    [d, h],
  );
  const texts = t.value.dimensions;
  return (
    <>
      <h2>{texts.heading}</h2>
      <Slider label={texts.heads} value={h} least={1} most={64} onValue={(value) => (heads.value = value)} />
      <Ready asked={asked}>
        {({ heads: [cut] }) =>
          cut && <p class="figure">{cut.divides ? `${texts.dModel} ${d} = ${cut.heads} · ${cut.d_k}` : cut.problem}</p>
        }
      </Ready>
    </>
  );
}
