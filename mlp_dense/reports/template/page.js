'use strict';
const dialog = document.querySelector('dialog');
const filled = (node, attributes, children) => {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function' || key in node && typeof value === 'boolean') node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};
const make = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const makeSvg = (tag, attributes, ...children) =>
  filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
const format = (value, decimals) => value === null ? '–' : decimals === null ? value : value.toFixed(decimals);

// A sortable table, which shows its first hundred rows until the button is clicked.
const table = ({columns, rows, sort}) => {
  let sorted = sort, descending = true, query = '', limit = 100;
  const search = make('input', {type: 'search', placeholder: 'find rows', 'aria-label': 'find rows'});
  const body = make('tbody'), more = make('button');
  const heads = columns.map(({name, meaning, decimals}, i) => {
    const onclick = () => { [descending, sorted] = [sorted === i ? !descending : decimals !== null, i]; fill(); };
    const heading = {'class': decimals === null ? '' : 'number', scope: 'col'};
    return make('th', heading, make('button', {title: meaning, onclick}, name));
  });
  const hasBars = columns.map(({decimals}, i) => {
    const values = rows.map(row => row[i]);
    return decimals === 3 && values.every(v => v === null || v >= 0 && v <= 1) && values.some(v => v > 0);
  });
  const fill = () => {
    heads.forEach((head, i) => head.setAttribute(
      'aria-sort', i !== sorted ? 'none' : descending ? 'descending' : 'ascending'));
    const matching = rows.filter(row => !query || row.join(' ').toLowerCase().includes(query));
    const order = (a, b) => a === b ? 0 : a === null ? 1 : b === null ? -1 :
      (typeof a === 'string' ? a.localeCompare(b) : a - b) * (descending ? -1 : 1);
    if (sorted !== null) matching.sort((a, b) => order(a[sorted], b[sorted]));
    body.replaceChildren(...matching.slice(0, limit).map(row => make('tr', {}, ...row.map((value, i) => {
      const {decimals} = columns[i], bar = hasBars[i] && value !== null;
      const className = (decimals === null ? '' : 'number') + (bar ? ' bar' : '');
      return make('td', {'class': className, style: bar ? `--length: ${100 * value}%` : ''}, format(value, decimals));
    }))));
    more.hidden = matching.length <= limit;
    more.textContent = `show all ${matching.length} rows`;
  };
  search.oninput = () => { query = search.value.toLowerCase(); fill(); };
  more.onclick = () => { limit = Infinity; fill(); };
  fill();
  const head = make('thead', {}, make('tr', {}, ...heads));
  const controls = rows.length > 20 ? [make('div', {'class': 'controls'}, search, more)] : [];
  return [...controls, make('div', {'class': 'scroll'}, make('table', {}, head, body))];
};

// Boxes, outlines and names of an image. A name stands at a corner of its box, where no other name is, or is left out.
const context = document.createElement('canvas').getContext('2d');
const overlay = (image, gallery, hidden, small) => {
  const svg = makeSvg('svg', {viewBox: `0 0 ${image.width} ${image.height}`, preserveAspectRatio: 'none'});
  const size = image.width / (small ? 24 : 70), line = 1.2 * size, names = [];
  context.font = '100px system-ui, sans-serif';
  const addName = (name, [left, top, width, height]) => {
    const length = context.measureText(name).width * size / 100 + size / 4;
    for (const [x, y] of [[left, top - line], [left, top], [left, top + height], [left, top + height - line],
      [left + width - length, top - line], [left + width - length, top + height]]) {
      const box = {x: Math.max(0, Math.min(x, image.width - length)), y: Math.max(0, Math.min(y, image.height - line))};
      if (!names.some(other => box.x < other.x + other.length && other.x < box.x + length &&
        Math.abs(box.y - other.y) < line)) {
        names.push({...box, length, name});
        return;
      }
    }
  };
  for (const {outcome, label, box, score, true_label, outline} of image.objects) {
    if (hidden.has(outcome)) continue;
    const colour = gallery.outcomes[outcome], isCorrect = outcome === 'hit' || outcome === 'truth';
    const name = gallery.classes[label] + (score === null ? '' : ` ${Math.round(100 * score)}`);
    const details = true_label === null ? '' : `, is ${gallery.classes[true_label]}`;
    const [x, y, width, height] = box;
    const style = {stroke: colour, 'stroke-dasharray': outcome === 'truth' ? '4 3' : 'none'};
    const title = makeSvg('title', {}, `${outcome}: ${name}${details}`);
    if (outline && !isCorrect) svg.append(makeSvg('path', {d: outline, stroke: colour, color: colour}));
    svg.append(makeSvg('rect', {x, y, width, height, ...style, 'class': isCorrect ? 'thin' : ''}, title));
    if (!isCorrect) addName(name, box);
  }
  svg.append(...names.map(({x, y, name}) => makeSvg('text', {x: x + size / 8, y: y + size, 'font-size': size}, name)));
  return svg;
};

const gallery = section => {
  const size = 12, hidden = new Set();
  let page = 0;
  const selection = (name, all, options) =>
    make('select', {'aria-label': name}, make('option', {value: ''}, all), ...options);
  const labels = new Set(section.images.flatMap(image => image.tags.map(([label]) => label)));
  const outcomes = new Set(section.images.flatMap(image => image.tags.map(([, outcome]) => outcome)));
  const options = section.classes.map((name, i) => make('option', {value: i}, name)).filter((_, i) => labels.has(i));
  const classes = selection('class', 'all classes', options);
  const errors = selection('outcome', 'all outcomes', Object.keys(section.outcomes).filter(
    name => outcomes.has(name)).map(name => make('option', {value: name}, name)));
  const previous = make('button', {'aria-label': 'previous page'}, '‹'), position = make('span');
  const next = make('button', {'aria-label': 'next page'}, '›');
  const list = make('div', {'class': 'images'});
  const show = image => {
    dialog.querySelector('div').replaceChildren(framed(image, false));
    dialog.showModal();
  };
  const framed = (image, small) => {
    const file = make('img', {src: image.file, width: image.width, height: image.height, alt: image.name,
      loading: 'lazy'});
    const content = image.objects.length ? [file, overlay(image, section, hidden, small)] : [file];
    const frame = make(small ? 'button' : 'div', {'class': 'image'}, ...content);
    if (small) frame.onclick = () => show(image);
    return make('figure', {}, frame, make('figcaption', {}, image.name, make('br'), make('span', {}, image.caption)));
  };
  const fill = () => {
    const isSelected = ([label, outcome]) =>
      (!classes.value || label === +classes.value) && (!errors.value || outcome === errors.value);
    const matching = section.images.filter(({tags}) => !(classes.value || errors.value) || tags.some(isSelected));
    const pages = Math.max(1, Math.ceil(matching.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    position.textContent = `${matching.length} image${matching.length === 1 ? '' : 's'}, page ${page + 1} of ${pages}`;
    previous.disabled = !page;
    next.disabled = page === pages - 1;
    list.replaceChildren(...matching.slice(page * size, (page + 1) * size).map(image => framed(image, true)));
  };
  classes.onchange = errors.onchange = () => { page = 0; fill(); };
  previous.onclick = () => { page--; fill(); };
  next.onclick = () => { page++; fill(); };
  const drawnOutcomes = new Set(section.images.flatMap(image => image.objects.map(({outcome}) => outcome)));
  const keys = Object.entries(section.outcomes).filter(([name]) => drawnOutcomes.has(name)).map(([name, colour]) =>
    make('label', {'class': 'key'}, make('input', {type: 'checkbox', checked: true, onchange: event => {
      if (event.target.checked) hidden.delete(name); else hidden.add(name);
      fill();
    }}), make('i', {style: `background:${colour}`}), name));
  fill();
  return [make('div', {'class': 'controls'}, classes, errors, previous, next, position),
    make('div', {'class': 'controls'}, ...keys), list];
};

const plot = ({file, width, height, title}) =>
  [make('a', {href: file}, make('img', {'class': 'plot', src: file, width, height, alt: title, loading: 'lazy'}))];

document.querySelector('h1').textContent = REPORT.title;
for (const [name, value] of Object.entries(REPORT.facts)) {
  document.querySelector('#facts').append(make('div', {}, make('dt', {}, name), make('dd', {}, value)));
}
REPORT.sections.forEach((section, i) => {
  const content = {table, plot, gallery}[section.type](section);
  document.querySelector('main').append(make('section', {id: `s${i}`}, make('h2', {}, section.title),
    ...(section.note ? [make('p', {}, section.note)] : []), ...content));
  document.querySelector('nav').append(make('a', {href: `#s${i}`}, section.title));
});
dialog.querySelector('button').onclick = () => dialog.close();
dialog.onclick = event => { if (event.target === dialog) dialog.close(); };
