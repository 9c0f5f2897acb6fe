(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const names = {'#010101': '--ink', '#010102': '--muted', '#010103': '--line', '#010110': '--base', '#010111': '--series-1',
    '#010112': '--series-2', '#010113': '--series-3', '#010114': '--series-4', '#010121': '--good', '#010122': '--bad'};
  const minus = text => text.replace('-', '\u2212');
  document.body.classList.add('scripted');

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const coloured = spec => JSON.parse(JSON.stringify(spec).replace(/#0101\d\d/g, c => style.getPropertyValue(names[c]).trim()));
    for (const figure of document.querySelectorAll('.chart')) {
      const spec = coloured(data.charts[figure.dataset.chart]);
      spec.width = 'container';
      spec.autosize = {type: 'fit-x', contains: 'padding'};
      figure.classList.add('interactive');
      vegaEmbed(figure.querySelector('.live'), spec, {actions: false, renderer: 'svg'})
        .catch(() => figure.classList.remove('interactive'));
    }
  };
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

  const table = document.querySelector('.arms');
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows];
  const between = (first, second, metric) => {
    for (const row of data.pairs) {
      const found = row.differences[metric];
      if (!found) continue;
      if (row.first === first && row.second === second) return found;
      if (row.first === second && row.second === first) return [-found[0], -found[2], -found[1], found[3]];
    }
    return null;
  };
  const signed = value => minus((value > 0 ? '+' : '') + value.toFixed(1));
  const pin = name => {
    for (const row of rows) {
      row.classList.toggle('pinned', row.dataset.arm === name);
      for (const cell of row.querySelectorAll('td[data-metric]')) {
        const place = cell.querySelector('.difference');
        place.className = 'difference';
        place.textContent = '';
        const found = name && row.dataset.arm !== name ? between(name, row.dataset.arm, cell.dataset.metric) : null;
        if (!found) continue;
        const better = data.metrics[cell.dataset.metric];
        const clear = found[3] < 0.05 && found[0] !== 0;
        const verdict = !better ? '' : !clear ? 'undecided' : (found[0] < 0) === (better === 'lower') ? 'better' : 'worse';
        place.textContent = `${signed(found[0])} [${signed(found[1])}, ${signed(found[2])}] ${verdict}`;
        place.classList.add(verdict === 'undecided' || !verdict ? 'unclear' : verdict);
      }
    }
  };
  document.getElementById('pin').addEventListener('change', event => pin(event.target.value));
  document.getElementById('filter').addEventListener('input', event => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.dataset.arm.toLowerCase().includes(word));
  });
  for (const head of table.tHead.rows[0].cells) {
    const button = head.querySelector('button');
    if (!button) continue;
    button.addEventListener('click', () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const value = row => {
        const cell = row.cells[head.cellIndex];
        return cell.dataset.value === undefined ? row.dataset.arm : cell.dataset.value === '' ? NaN : Number(cell.dataset.value);
      };
      rows.sort((a, b) => {
        const x = value(a), y = value(b);
        const order = typeof x === 'string' ? x.localeCompare(y) : Number.isNaN(x) - Number.isNaN(y) || x - y;
        return down ? -order : order;
      });
      body.append(...rows);
    });
  }
  pin(document.getElementById('pin').value);
})();
