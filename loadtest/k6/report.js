// The page that `-e REPORT=file.html` writes: the verdict, what was asked and seen, each threshold, and the distributions
// as bars. One file without scripts or anything from the network, to be mailed or kept beside a build.

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { display: inline-block; padding: .2rem .8rem; border-radius: .3rem; color: #fff; font-weight: 600; }
.ok { background: #1a7f37; } .missed { background: #b42318; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e4e4e4; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .faint { color: #666; }
svg text { font: 12px system-ui, sans-serif; fill: #222; }`;

function escape(text) {
  return String(text).replace(/[&<>"]/g, (it) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[it]);
}

function table(head, rows) {
  const cells = (tag, row) => row.map((it) => (it.startsWith('<') ? it : `<${tag}>${it}</${tag}>`)).join('');
  return `<table><tr>${cells('th', head)}</tr>${rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('')}</table>`;
}

/** A bar for each of the wanted values, on one scale from 0 to the largest. */
function bars(label, stats, values) {
  const [left, width, height] = [70, 520, 22];
  const largest = Math.max(...stats.map((stat) => values[stat]), Number.MIN_VALUE);
  const lines = stats.map((stat, at) => {
    const length = (values[stat] / largest) * width;
    const y = at * height;
    return `<text x="${left - 8}" y="${y + 15}" text-anchor="end">${escape(stat)}</text>
<rect x="${left}" y="${y + 3}" width="${length.toFixed(1)}" height="${height - 6}" fill="#3b6fb6"/>
<text x="${left + length + 6}" y="${y + 15}">${values[stat].toFixed(1)} ms</text>`;
  });
  return `<h2>${escape(label)}</h2><svg role="img" aria-label="${escape(label)}" width="${left + width + 90}" height="${stats.length * height}">${lines.join('')}</svg>`;
}

/**
 * `figures` and `distributions` are rows as of a summary, with what was measured; `verdicts` are
 * `[metric, condition, ok]`; `asked` is what the run was started with.
 */
export function page({ title, asked, figures, distributions, verdicts }) {
  const missed = verdicts.filter(([, , ok]) => !ok).length;
  const verdict = missed ? `${missed} of ${verdicts.length} thresholds missed` : `all ${verdicts.length} thresholds kept`;
  const number = (it) => `<td class="number">${escape(it)}</td>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title><style>${STYLE}</style></head><body>
<h1>${escape(title)}</h1>
<p><span class="verdict ${missed ? 'missed' : 'ok'}">${verdict}</span></p>
<p class="faint">${new Date().toISOString()}, ${asked.map(([name, value]) => `${escape(name)} ${escape(value)}`).join(', ')}</p>
<h2>Seen</h2>${table(['', ''], figures.map(([label, value]) => [escape(label), number(value)]))}
${distributions.map(([label, stats, values]) => bars(label, stats, values)).join('')}
<h2>Thresholds</h2>${table(['metric', 'has to be', ''], verdicts.map(([metric, condition, ok]) => [escape(metric), escape(condition), ok ? 'kept' : '<td><span class="verdict missed">missed</span></td>']))}
</body></html>
`;
}
