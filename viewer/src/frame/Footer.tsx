import { start, who } from "../state/session";
import { t } from "../texts";

export function Footer() {
  const texts = t.value.frame;
  const now = who.value;
  if (!now) return <footer class="footer" />;
  return (
    <footer class="footer">
      {texts.foot(now.computes === "native" ? texts.native : texts.webAssembly, now.isa, now.max_error.toExponential())} {start.value?.model?.dtype === "BF16" && `${texts.siteBf16} `}manyheads {now.version}
    </footer>
  );
}
