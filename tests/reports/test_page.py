"""Page of a report in a headless browser: sorting, filtering, layout, and no errors."""

import base64
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mlp_dense.reports import page as pages
from mlp_dense.reports.page import Column, DrawnObject, Gallery, GalleryImage, Plot, Report, Table

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason='Chromium is not installed')
COUNT = 150


def report(folder: Path) -> Report:
    columns = [
        Column('class', [f'class <{i}>' for i in range(COUNT)]),
        Column('AP', [(i * 37 % COUNT) / COUNT for i in range(COUNT)], 'average precision'),
        Column('objects', [float('nan') if i == 3 else i for i in range(COUNT)], 'in all'),
    ]
    empty = [Column('class', [])]
    (folder / 'pictures').mkdir(parents=True)
    images = []
    for i in range(30):
        cv2.imwrite(str(folder / f'pictures/{i}.jpg'), np.full((60, 80, 3), 8 * i, np.uint8))
        outcome = ('missed', 'background')[i % 2]
        objects = [
            DrawnObject(outcome, i % 3, [10, 10, 40, 30], 'M10 10L50 10L50 40Z', 0.5, 2),
            DrawnObject('truth', 0, [1, 1, 5, 5]),
        ]
        tags = [(i % 3, outcome)]
        image = GalleryImage('', f'image {i}', f'{i} errors', tags, objects, f'pictures/{i}.jpg', 80, 60)
        images.append(image)
    crowd = [DrawnObject('missed', k % 3, [k, 20 + k % 4, 12, 9]) for k in range(60)]
    images[0].objects = [*images[0].objects, *crowd]
    outcomes = {'missed': '#4477aa', 'background': '#ee3333', 'truth': '#bbbbbb'}
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([0, 1])
    sections = [
        Table('Classes', 'A note & more.', columns, sort=1),
        Gallery('Images', 'The worst.', ['cat', 'dog', 'emu'], outcomes, images),
        Plot('Curve', 'A line.', 'curve', figure),
        Table('Nothing', '', empty),
    ]
    return Report('Tested <b>', {'mAP': '0.5', 'checkpoint': 'a/very/long/' * 9}, sections, dict(AP=float('nan')))


@pytest.fixture
def page(tmp_path) -> Path:
    pages.write_report(report(tmp_path / 'report'), tmp_path / 'report')
    return tmp_path / 'report' / 'index.html'


def in_browser(page: Path, script: str) -> dict:
    """Open a page from disk and run a script in it; return the object that it returns, with `errors` of the page."""
    first = 'const errors = []; addEventListener("error", event => errors.push(event.message));'
    first = f'<head><script>{first} console.error = (...all) => errors.push(all.join());</script>'
    html = page.read_text(encoding='utf-8').replace('<head>', first)
    encoded = 'btoa(unescape(encodeURIComponent(JSON.stringify(result))))'
    last = f'const result = (() => {{ {script} }})(); result.errors = errors;'
    run = f"<script>{last} document.body.innerHTML = '<pre>' + {encoded} + '</pre>';</script>"
    copy = page.with_name('copy.html')
    copy.write_text(html.replace('</body>', f'{run}</body>'), encoding='utf-8')
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--window-size=1200,900', '--virtual-time-budget=3000']
    done = subprocess.run([BROWSER, *options, '--dump-dom', copy.as_uri()], capture_output=True, text=True, timeout=120)
    (result,) = re.findall(r'<pre>(.*)</pre>', done.stdout)
    return json.loads(base64.b64decode(result))


TEXTS = 'const texts = selector => [...document.querySelectorAll(selector)].map(node => node.textContent);'


@in_a_browser
def test_table_sorts_and_searches(page):
    result = in_browser(
        page,
        TEXTS
        + """
        const rows = () => texts('#s0 td:first-child').slice(0, 3);
        const heads = [...document.querySelectorAll('#s0 th button')];
        const out = {title: document.title, head: texts('h1')[0], facts: texts('#facts dd'), first: rows()};
        out.shown = texts('#s0 tbody tr').length;
        heads[1].click(); out.ascending = rows();
        heads[0].click(); out.names = rows();
        heads[2].click(); out.objects = rows(); heads[2].click(); out.last = texts('#s0 td:first-child').length;
        document.querySelector('#s0 .controls button').click(); out.all = texts('#s0 tbody tr').length;
        out.end = texts('#s0 td:first-child').at(-1);
        const search = document.querySelector('#s0 input'); search.value = 'CLASS <7>';
        search.dispatchEvent(new Event('input')); out.searched = texts('#s0 td:first-child');
        out.bar = document.querySelector('#s0 td.bar').style.getPropertyValue('--length');
        out.empty = texts('#s3 tbody tr').length; out.nav = texts('nav a');
        return out;""",
    )
    values = {f'class <{i}>': (i * 37 % COUNT) / COUNT for i in range(COUNT)}
    order = sorted(values, key=lambda name: -values[name])
    assert result['errors'] == [] and result['title'] == result['head'] == 'Tested <b>' and result['facts'][0] == '0.5'
    assert result['first'] == order[:3] and result['ascending'] == order[::-1][:3] and result['shown'] == 100
    assert result['names'] == ['class <0>', 'class <1>', 'class <10>']
    assert result['objects'][0] == f'class <{COUNT - 1}>'
    assert result['all'] == COUNT and result['end'] == 'class <3>', 'a missing value comes last'
    assert result['searched'] == ['class <7>'] and result['empty'] == 0
    assert float(result['bar'].rstrip('%')) == pytest.approx(100 * values['class <7>'])
    assert result['nav'][:4] == ['Classes', 'Images', 'Curve', 'Nothing']


@in_a_browser
def test_gallery_filters_and_enlarges(page):
    result = in_browser(
        page,
        TEXTS
        + """
        const names = () => [...document.querySelectorAll('#s1 figcaption')].map(node => node.firstChild.textContent);
        const [classes, outcomes] = document.querySelectorAll('#s1 select'), change = new Event('change');
        const [previous, next] = document.querySelectorAll('#s1 .controls button');
        const out = {first: names(), options: texts('#s1 select option'), position: texts('#s1 .controls span')[0]};
        next.click(); out.second = names(); previous.click();
        classes.value = 1; classes.dispatchEvent(change); out.dogs = names();
        outcomes.value = 'missed'; outcomes.dispatchEvent(change); out.missed = names();
        out.counted = texts('#s1 .controls span')[0];
        out.rects = document.querySelectorAll('#s1 figure:first-child rect').length;
        out.titles = texts('#s1 figure:first-child rect title');
        document.querySelector('#s1 .key input').click();
        out.hidden = document.querySelectorAll('#s1 figure:first-child rect').length;
        document.querySelector('#s1 .image').click(); out.open = document.querySelector('dialog').open;
        document.querySelector('dialog button').click(); out.closed = !document.querySelector('dialog').open;
        return out;""",
    )
    assert result['errors'] == [] and result['first'] == [f'image {i}' for i in range(12)]
    assert result['second'] == [f'image {i}' for i in range(12, 24)] and result['position'] == '30 images, page 1 of 3'
    assert result['options'] == ['all classes', 'cat', 'dog', 'emu', 'all outcomes', 'missed', 'background']
    assert result['dogs'] == [f'image {i}' for i in range(1, 30, 3)]
    assert result['missed'] == [f'image {i}' for i in range(4, 30, 6)] and result['counted'] == '5 images, page 1 of 1'
    assert result['rects'] == 2 and result['hidden'] == 1 and result['open'] and result['closed']
    assert result['titles'] == ['missed: dog 50, is emu', 'truth: cat']


@in_a_browser
def test_names_in_an_image_do_not_overlap(page):
    script = """
        const boxes = selector => [...document.querySelectorAll(selector)].map(node => node.getBoundingClientRect());
        return {names: boxes('#s1 figure:first-child text').map(({left, right, top, bottom}) =>
          [left, top, right, bottom]), image: boxes('#s1 figure:first-child svg')[0]};"""
    result = in_browser(page, script)
    assert result['errors'] == [] and 10 < len(result['names']) < 61, 'some names have no free position'
    for (left, top, right, bottom), (left2, top2, right2, bottom2) in itertools.combinations(result['names'], 2):
        width, height = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
        assert width <= 0.5 or height <= 0.2 * (bottom - top), 'the boxes of glyphs include the spacing of lines'
    assert all(right <= result['image']['right'] + 1 for _, _, right, _ in result['names'])


def test_report_json_has_the_values_and_tables(page):
    content = json.loads((page.parent / 'report.json').read_text())
    assert content['AP'] is None and content['facts']['mAP'] == '0.5'
    assert content['tables']['Classes'][3] == {'class': 'class <3>', 'AP': 111 / COUNT, 'objects': None}
    assert cv2.imread(str(page.parent / 'plots/curve.png')).shape == (450, 600, 3)
    html = page.read_text(encoding='utf-8').replace('http://www.w3.org/2000/svg', '')
    assert 'http' not in html, 'the page loads nothing from the network'
