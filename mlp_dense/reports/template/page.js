'use strict';
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in node && key !== 'style') node[key] = value; else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};
const drawn = (tag, attributes, text) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
};
const format = (value, decimals) => value === null ? '–' : decimals === null ? value : value.toFixed(decimals);

// Sortable rows; the first hundred, until all are asked for.
const table = ({columns, rows, sort}) => {
  let by = sort, down = true, words = '', most = 100;
  const body = make('tbody'), more = make('button'), search = make('input', {type: 'search', placeholder: 'find rows'});
  search.setAttribute('aria-label', 'find rows');
  const heads = columns.map(([name, meaning, decimals], i) => {
    const button = make('button', {title: meaning, onclick: () => {
      down = by === i ? !down : decimals !== null;
      by = i;
      fill();
    }}, name);
    return make('th', {className: decimals === null ? '' : 'number', scope: 'col'}, button);
  });
  const parts = columns.map(([, , decimals], i) => {
    const values = rows.map(row => row[i]);
    return decimals === 3 && values.every(v => v === null || v >= 0 && v <= 1) && values.some(v => v > 0);
  });
  const fill = () => {
    heads.forEach((head, i) => {
      head.setAttribute('aria-sort', i !== by ? 'none' : down ? 'descending' : 'ascending');
    });
    let chosen = rows.filter(row => !words || row.join(' ').toLowerCase().includes(words));
    if (by !== null) {
      const order = (a, b) => a === b ? 0 : a === null ? 1 : b === null ? -1 :
        (typeof a === 'string' ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
      chosen = chosen.slice().sort((a, b) => order(a[by], b[by]));
    }
    body.replaceChildren(...chosen.slice(0, most).map(row => make('tr', {}, ...row.map((value, i) => {
      const cell = make('td', {}, format(value, columns[i][2]));
      if (columns[i][2] !== null) cell.classList.add('number');
      if (parts[i] && value !== null) { cell.classList.add('bar'); cell.style.setProperty('--part', `${100 * value}%`); }
      return cell;
    }))));
    more.hidden = chosen.length <= most;
    more.textContent = `show all ${chosen.length} rows`;
  };
  search.oninput = () => { words = search.value.toLowerCase(); fill(); };
  more.onclick = () => { most = Infinity; fill(); };
  fill();
  const head = make('thead', {}, make('tr', {}, ...heads));
  const controls = rows.length > 20 ? [make('div', {className: 'controls'}, search, more)] : [];
  return [...controls, make('div', {className: 'scroll'}, make('table', {}, head, body))];
};

const overlay = (picture, gallery, hidden, small) => {
  const svg = drawn('svg', {viewBox: `0 0 ${picture.width} ${picture.height}`, preserveAspectRatio: 'none'});
  const size = picture.width / (small ? 24 : 70), texts = [];
  for (const [kind, label, x, y, width, height, score, overlap, other, path] of picture.objects) {
    if (hidden.has(kind)) continue;
    const [name, colour] = gallery.kinds[kind], thin = name === 'hit' || name === 'truth';
    const percent = score === null ? '' : ` ${Math.round(100 * score)}`;
    const text = gallery.classes[label] + percent;
    const more = (overlap === null ? '' : `, IoU ${overlap.toFixed(2)}`) +
      (other === null ? '' : `, is ${gallery.classes[other]}`);
    const box = drawn('rect', {x, y, width, height, stroke: colour, 'class': thin ? 'thin' : ''});
    if (name === 'truth') box.setAttribute('stroke-dasharray', '4 3');
    box.append(drawn('title', {}, `${name}: ${text}${more}`));
    if (path && !thin) svg.append(drawn('path', {d: path, stroke: colour, color: colour}));
    svg.append(box);
    if (!thin) texts.push(drawn('text', {x: x + size / 4, y: Math.max(y, 0) + 1.1 * size, 'font-size': size}, text));
  }
  svg.append(...texts);
  return svg;
};

const gallery = section => {
  const size = 12, hidden = new Set();
  let page = 0;
  const option = (text, value) => make('option', {value}, text);
  const used = new Set(section.pictures.flatMap(picture => picture.tags.map(([label]) => label)));
  const kinds = new Set(section.pictures.flatMap(picture => picture.tags.map(([, kind]) => kind)));
  const classes = make('select', {}, option('all classes', ''), ...section.classes.flatMap(
    (name, i) => used.has(i) ? [option(name, i)] : []));
  classes.setAttribute('aria-label', 'class');
  const errors = make('select', {}, option('all kinds', ''), ...section.kinds.flatMap(
    ([name], i) => kinds.has(i) ? [option(name, i)] : []));
  errors.setAttribute('aria-label', 'kind');
  const back = make('button', {}, '‹'), on = make('button', {}, '›'), where = make('span');
  back.setAttribute('aria-label', 'previous page');
  on.setAttribute('aria-label', 'next page');
  const list = make('div', {className: 'pictures'});
  const show = picture => {
    const dialog = document.querySelector('dialog');
    dialog.querySelector('div').replaceChildren(framed(picture, false));
    dialog.showModal();
  };
  const framed = (picture, small) => {
    const image = make('img', {src: picture.file, width: picture.width, height: picture.height, alt: picture.name,
      loading: 'lazy'});
    const inside = picture.objects.length ? [image, overlay(picture, section, hidden, small)] : [image];
    const frame = make(small ? 'button' : 'div', {className: 'picture'}, ...inside);
    if (small) frame.onclick = () => show(picture);
    return make('figure', {}, frame, make('figcaption', {}, picture.name, make('br'), make('span', {}, picture.caption)));
  };
  const fill = () => {
    const chosen = section.pictures.filter(({tags}) => !(classes.value || errors.value) || tags.some(([label, kind]) =>
      (!classes.value || label === +classes.value) && (!errors.value || kind === +errors.value)));
    const pages = Math.max(1, Math.ceil(chosen.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    where.textContent = `${chosen.length} image${chosen.length === 1 ? '' : 's'}, page ${page + 1} of ${pages}`;
    back.disabled = !page;
    on.disabled = page === pages - 1;
    list.replaceChildren(...chosen.slice(page * size, (page + 1) * size).map(picture => framed(picture, true)));
  };
  classes.onchange = errors.onchange = () => { page = 0; fill(); };
  back.onclick = () => { page--; fill(); };
  on.onclick = () => { page++; fill(); };
  const drawnKinds = new Set(section.pictures.flatMap(picture => picture.objects.map(([kind]) => kind)));
  const keys = section.kinds.flatMap(([name, colour], i) => !drawnKinds.has(i) ? [] : [make('label', {className: 'key'},
    make('input', {type: 'checkbox', checked: true, onchange: event => {
      if (event.target.checked) hidden.delete(i); else hidden.add(i);
      fill();
    }}), make('i', {style: `background:${colour}`}), name)]);
  fill();
  return [make('div', {className: 'controls'}, classes, errors, back, on, where),
    make('div', {className: 'controls'}, ...keys), list];
};

const plot = ({file, width, height, title}) =>
  [make('a', {href: file}, make('img', {className: 'plot', src: file, width, height, alt: title, loading: 'lazy'}))];

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
const dialog = document.querySelector('dialog');
dialog.querySelector('button').onclick = () => dialog.close();
dialog.onclick = event => { if (event.target === dialog) dialog.close(); };
