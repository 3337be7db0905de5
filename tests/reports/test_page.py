"""The page of a report, in a browser without a screen: sorting, filtering, and no error."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mlp_dense.errors import UserError
from mlp_dense.reports.page import Gallery, Picture, Plot, Report, Table, check_folder, write_report

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason='no Chromium is installed')
COUNT = 150


def report(folder: Path) -> Report:
    rows = [[f'class <{i}>', (i * 37 % COUNT) / COUNT, None if i == 3 else i] for i in range(COUNT)]
    columns = [('class', '', None), ('AP', 'average precision', 3), ('objects', 'in all', 0)]
    (folder / 'pictures').mkdir(parents=True)
    pictures = []
    for i in range(30):
        cv2.imwrite(str(folder / f'pictures/{i}.jpg'), np.full((60, 80, 3), 8 * i, np.uint8))
        objects = [
            [i % 2, i % 3, 10, 10, 40, 30, 0.5, 0.25, 2, 'M10 10L50 10L50 40Z'],
            [2, 0, 1, 1, 5, 5, None, None, None, ''],
        ]
        pictures.append(Picture(f'pictures/{i}.jpg', f'image {i}', 80, 60, f'{i} errors', [[i % 3, i % 2]], objects))
    kinds = [('missed', '#4477aa'), ('background', '#ee3333'), ('truth', '#bbbbbb')]
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([0, 1])
    sections = [
        Table('Classes', 'A note & more.', columns, rows, sort=1),
        Gallery('Images', 'The worst.', ['cat', 'dog', 'emu'], kinds, pictures),
        Plot('Curve', 'A line.', 'curve', figure),
        Table('Nothing', '', columns, []),
    ]
    return Report('Tested <b>', {'mAP': '0.5', 'checkpoint': 'a/very/long/' * 9}, sections, dict(AP=float('nan')))


@pytest.fixture
def page(tmp_path) -> Path:
    return write_report(report(tmp_path / 'report'), tmp_path / 'report')


def in_browser(page: Path, script: str, size: str = '1200,900') -> dict:
    """Opens a page from disk, runs a script in it, and returns what that gives, with `errors` of the page."""
    html = page.read_text(encoding='utf-8')
    first = 'const errors = []; addEventListener("error", event => errors.push(event.message));'
    html = html.replace(
        '<head>', f'<head><script>{first} console.error = (...all) => errors.push(all.join());</script>'
    )
    encoded = 'btoa(unescape(encodeURIComponent(JSON.stringify(found))))'
    last = f'const found = (() => {{ {script} }})(); found.errors = errors;'
    run = f"<script>{last} document.body.innerHTML = '<pre>' + {encoded} + '</pre>';</script>"
    tried = page.with_name('tried.html')
    tried.write_text(html.replace('</body>', f'{run}</body>'), encoding='utf-8')
    options = ['--headless', '--no-sandbox', '--disable-gpu', f'--window-size={size}', '--virtual-time-budget=3000']
    done = subprocess.run(
        [BROWSER, *options, '--dump-dom', tried.as_uri()], capture_output=True, text=True, timeout=120
    )
    (found,) = re.findall(r'<pre>(.*)</pre>', done.stdout)
    return json.loads(base64.b64decode(found))


TEXTS = 'const texts = selector => [...document.querySelectorAll(selector)].map(node => node.textContent);'


@in_a_browser
def test_sorting_and_finding(page):
    found = in_browser(
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
        out.bar = document.querySelector('#s0 td.bar').style.getPropertyValue('--part');
        out.empty = texts('#s3 tbody tr').length; out.nav = texts('nav a');
        return out;""",
    )
    values = {f'class <{i}>': (i * 37 % COUNT) / COUNT for i in range(COUNT)}
    order = sorted(values, key=lambda name: -values[name])
    assert found['errors'] == [] and found['title'] == found['head'] == 'Tested <b>' and found['facts'][0] == '0.5'
    assert found['first'] == order[:3] and found['ascending'] == order[::-1][:3] and found['shown'] == 100
    assert found['names'] == ['class <0>', 'class <1>', 'class <10>'] and found['objects'][0] == f'class <{COUNT - 1}>'
    assert found['all'] == COUNT and found['end'] == 'class <3>', 'what has no value comes last'
    assert found['searched'] == ['class <7>'] and found['empty'] == 0
    assert found['bar'] == f'{100 * values["class <7>"]:.14g}%' or float(found['bar'][:-1]) == pytest.approx(
        100 * values['class <7>']
    )
    assert found['nav'] == ['Classes', 'Images', 'Curve', 'Nothing']


@in_a_browser
def test_gallery(page):
    found = in_browser(
        page,
        TEXTS
        + """
        const names = () => [...document.querySelectorAll('#s1 figcaption')].map(each => each.firstChild.textContent);
        const [classes, kinds] = document.querySelectorAll('#s1 select'), change = new Event('change');
        const [back, on] = document.querySelectorAll('#s1 .controls button');
        const out = {first: names(), options: texts('#s1 select option'), where: texts('#s1 .controls span')[0]};
        on.click(); out.second = names(); back.click();
        classes.value = 1; classes.dispatchEvent(change); out.dogs = names();
        kinds.value = 0; kinds.dispatchEvent(change); out.missed = names();
        out.counted = texts('#s1 .controls span')[0];
        out.rects = document.querySelectorAll('#s1 figure:first-child rect').length;
        out.said = texts('#s1 figure:first-child rect title');
        document.querySelector('#s1 .key input').click();
        out.hidden = document.querySelectorAll('#s1 figure:first-child rect').length;
        document.querySelector('#s1 .picture').click(); out.open = document.querySelector('dialog').open;
        document.querySelector('dialog button').click(); out.closed = !document.querySelector('dialog').open;
        return out;""",
    )
    assert found['errors'] == [] and found['first'] == [f'image {i}' for i in range(12)]
    assert found['second'] == [f'image {i}' for i in range(12, 24)] and found['where'] == '30 images, page 1 of 3'
    assert found['options'] == ['all classes', 'cat', 'dog', 'emu', 'all kinds', 'missed', 'background']
    assert found['dogs'] == [f'image {i}' for i in range(1, 30, 3)]
    assert found['missed'] == [f'image {i}' for i in range(4, 30, 6)] and found['counted'] == '5 images, page 1 of 1'
    assert found['rects'] == 2 and found['hidden'] == 1 and found['open'] and found['closed']
    assert found['said'] == ['missed: dog 50, IoU 0.25, is emu', 'truth: cat']


@in_a_browser
@pytest.mark.parametrize('size', ['1200,900', '500,900'])
def test_fits_the_screen(page, size):
    script = 'return {width: document.documentElement.scrollWidth, screen: innerWidth};'
    found = in_browser(page, script, size)
    assert found['errors'] == [] and found['width'] <= found['screen']


def test_numbers(page):
    content = json.loads((page.parent / 'report.json').read_text())
    assert content['AP'] is None and content['facts']['mAP'] == '0.5'
    assert content['tables']['Classes'][3] == dict(
        zip(('class', 'AP', 'objects'), ['class <3>', 111 / COUNT, None], strict=True)
    )
    assert cv2.imread(str(page.parent / 'plots/curve.png')).shape == (450, 600, 3)
    assert 'http' not in page.read_text(encoding='utf-8').replace('http://www.w3.org/2000/svg', ''), (
        'nothing is fetched'
    )


def test_a_folder_of_something_else(page, tmp_path):
    check_folder(page.parent)
    check_folder(tmp_path / 'new')
    (page.parent / 'thesis.tex').write_text('')
    with pytest.raises(
        UserError, match=r'holds other things than a report \(thesis\.tex\); give a new or empty folder'
    ):
        check_folder(page.parent)
