//! Checks that hold for every view, as JavaScript expressions evaluated in the page. They depend on no single
//! view.

/// Elements without an accessible name for screen readers.
pub(crate) const UNLABELLED: &str = "[...document.querySelectorAll('button, a, input, select, canvas, [role=region], svg[role=img]')] \
    .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML.slice(0, 200))";

/// Number of pixels by which the page is wider than the screen.
pub(crate) const TOO_WIDE: &str = "document.documentElement.scrollWidth - innerWidth";

/// Table cells that begin or end off the screen, and scrolling regions that hide cells to the right.
pub(crate) const OFF_SCREEN: &str = "[...document.querySelectorAll('main td, main th, main .r > span')] \
    .filter((e) => { const r = e.getBoundingClientRect(); return r.width > 1 && (r.left < 0 || Math.floor(r.right) > innerWidth); }).map((e) => e.outerHTML.slice(0, 200)) \
    .concat([...document.querySelectorAll('main .scroll')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.getAttribute('aria-label')))";

/// Visible texts with less contrast than WCAG level AA requires, each with its ratio:
/// <https://www.w3.org/TR/WCAG21/#contrast-minimum>
pub(crate) const FAINT: &str = "(() => { \
    const numbers = (css) => css.match(/[\\d.]+/g).map(Number); \
    const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0); \
    const behind = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; }; \
    const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); \
    while (walker.nextNode()) { \
      const e = walker.currentNode.parentElement, r = e.getBoundingClientRect(); \
      if (!walker.currentNode.data.trim() || r.width < 2 || r.right < 0 || ['SCRIPT', 'STYLE', 'NOSCRIPT', 'OPTION'].includes(e.tagName)) continue; \
      const style = getComputedStyle(e), size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700); \
      const pair = [light(numbers(style.color)), light(behind(e))].sort((a, b) => b - a), ratio = (pair[0] + 0.05) / (pair[1] + 0.05); \
      if (ratio < (large ? 3 : 4.5)) found.add(`${ratio.toFixed(2)} ${e.className} ${e.tagName} ${walker.currentNode.data.trim().slice(0, 40)}`); \
    } return [...found]; })()";

/// Contrast of the text drawn on each state of the timeline, and of the state "unknown" against the card.
pub(crate) const LANES: &str = "(() => { \
    const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim(); \
    const ratio = (a, b) => { const [x, y] = [PW.luminance(a), PW.luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); }; \
    const texts = PW.STATES.flatMap((s) => [1, 0.6].map((alpha) => { const on = PW.blend(css(`--s-${s}`), css('--card'), alpha); return [s, ratio(PW.inkOn(on), on)]; })); \
    return { faint: texts.filter(([, n]) => n < 4.5), states: texts.length, unknown: ratio(css('--s-unknown'), css('--card')) }; })()";
