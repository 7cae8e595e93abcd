'use strict';
// Draws /status.json, each second. All text goes through textContent.
const $ = id => document.getElementById(id);
const samples = [];
let failures = 0;

const count = n => n < 100000 ? Math.round(n).toLocaleString('en') : new Intl.NumberFormat('en', {notation: 'compact', maximumSignificantDigits: 3}).format(n);
const percent = (share, digits = 1) => (100 * share).toFixed(digits) + ' %';
const known = (value, form) => value === null ? '–' : form(value);
const micros = us => us < 1000 ? us + ' µs' : us < 1e6 ? (us / 1000).toFixed(us < 10000 ? 2 : 0) + ' ms' : (us / 1e6).toFixed(1) + ' s';
function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (n >= 1024 && at < 4) { n /= 1024; at++; }
  return (at && n < 100 ? n.toFixed(1) : Math.round(n)) + ' ' + units[at];
}
function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min';
  if (s < 172800) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
  return Math.floor(s / 86400) + ' days';
}
function text(id, value) { if ($(id).textContent !== value) $(id).textContent = value; }
function make(space, name, attributes, content) {
  const made = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (content !== undefined) made.textContent = content;
  return made;
}
const shape = (...parts) => make('http://www.w3.org/2000/svg', ...parts);
const tag = (...parts) => make('http://www.w3.org/1999/xhtml', ...parts);
function list(id, rows) {
  $(id).replaceChildren(...rows.flatMap(([name, value]) => [tag('dt', {}, name), tag('dd', {}, value)]));
}
function spark(id, values, max) {
  const top = max || Math.max(1e-9, ...values);
  const points = values.map((v, i) => (i * 100 / Math.max(1, values.length - 1)).toFixed(1) + ',' + (29 - 27 * v / top).toFixed(1));
  if (points.length < 2) return;
  $(id).replaceChildren(shape('path', {class: 'area', d: 'M0,30 L' + points.join(' L') + ' L100,30 Z'}), shape('path', {class: 'spark', d: 'M' + points.join(' L')}));
}

function tiles(f) {
  const last = samples[samples.length - 1], first = samples[Math.max(0, samples.length - 61)];
  const rates = samples.slice(1).map((s, i) => Math.max(0, s.requests - samples[i].requests) * 1000 / Math.max(1, s.at - samples[i].at));
  text('rate', count(rates.length ? rates[rates.length - 1] : 0));
  text('rate-note', count(last.requests) + ' since the start');
  spark('rate-spark', rates);
  const found = last.hits - first.hits, missed = last.misses - first.misses;
  text('hit', found + missed ? percent(found / (found + missed)) : '–');
  text('hit-note', last.hits + last.misses ? percent(last.hits / (last.hits + last.misses)) + ' since the start' : 'no key was read yet');
  const ratios = samples.slice(1).map((s, i) => [s.hits - samples[i].hits, s.misses - samples[i].misses]).filter(([h, m]) => h + m).map(([h, m]) => h / (h + m));
  spark('hit-spark', ratios, 1);
  text('keys', count(f.keyspace.keys));
  text('keys-note', count(f.keyspace.sets) + ' set, ' + count(f.keyspace.expirations) + ' expired');
  spark('keys-spark', samples.map(s => s.keys));
  const memory = f.memory;
  text('memory', bytes(memory.memory_bytes));
  text('memory-note', memory.memory_max ? 'of ' + bytes(memory.memory_max) : bytes(memory.memory_live_bytes) + ' in items');
  $('memory-meter').style.width = (memory.memory_max ? Math.min(100, 100 * memory.memory_bytes / memory.memory_max) : 100 * memory.memory_live_bytes / Math.max(1, memory.memory_bytes)) + '%';
  text('busy', percent(f.server.loop_busy_ratio));
  text('busy-note', 'longest iteration ' + micros(f.server.iteration_max_us));
  $('busy-meter').style.width = 100 * f.server.loop_busy_ratio + '%';
}

function p99(s) {
  const minute = s.spans.minute;
  text('p99', known(minute.p99_us, micros));
  text('p99-note', minute.p99_us === null ? 'no request in the last minute' : '50 % within ' + micros(minute.p50_us));
  spark('p99-spark', samples.map(s => s.p99));
}

function spans(s) {
  $('spans').replaceChildren(...Object.entries(s.spans).map(([name, span]) => {
    const row = tag('tr'), read = span.hits + span.misses;
    row.append(tag('th', {scope: 'row'}, name));
    for (const cell of [count(span.requests / span.seconds), read ? percent(span.hits / read) : '–', known(span.p50_us, micros), known(span.p99_us, micros), known(span.p999_us, micros)]) row.append(tag('td', {class: 'number'}, cell));
    return row;
  }));
}

const ago = ms => ms <= 3600000 ? Math.round(ms / 60000) + ' min' : Math.round(ms / 3600000) + ' h';
// A chart of some series of [seconds ago, value]: a gap in time is a gap in the line, as nothing happened then.
function chart(id, span, series, options) {
  const {form, log, max, min = 0} = options, values = series.flatMap(one => one.points.map(p => p[1]));
  const top = max || Math.max(...values, log ? 10 : 1e-9), low = log ? Math.max(.5, Math.min(...values, top)) : min;
  const scale = v => log ? (Math.log(Math.max(v, low)) - Math.log(low)) / Math.max(.1, Math.log(top) - Math.log(low)) : (v - low) / (top - low);
  const oldest = Math.max(600, ...series.flatMap(one => one.points.map(p => p[0] + span.sample_seconds))), shown = Math.min(span.seconds, oldest);
  const x = age => (292 - 284 * Math.min(1, age / shown)).toFixed(1), y = v => (92 - 80 * Math.min(1, scale(v))).toFixed(1);
  const parts = [shape('line', {class: 'axis', x1: 8, x2: 292, y1: 92, y2: 92}), shape('line', {class: 'axis', x1: 8, x2: 292, y1: 12, y2: 12})];
  for (const {points, style, area} of series) {
    let path = '', last = null, begin = null, filled = '';
    points.forEach(([age, v]) => {
      const goes_on = last !== null && last - age <= 1.5 * span.sample_seconds;
      if (!goes_on && last !== null) filled += `L${x(last)},92 L${x(begin)},92Z`;
      if (!goes_on) begin = age;
      const step = (goes_on ? 'L' : 'M') + x(age) + ',' + y(v);
      path += goes_on ? step : step + 'h.8';
      filled += step;
      last = age;
    });
    if (last !== null) filled += `L${x(last)},92 L${x(begin)},92Z`;
    if (area) parts.push(shape('path', {class: 'area', d: filled}));
    parts.push(shape('path', {class: 'curve ' + style, d: path}));
  }
  parts.push(shape('text', {x: 8, y: 9}, values.length ? form(top) : 'nothing happened'));
  parts.push(shape('text', {x: 8, y: 104}, '−' + ago(1000 * shown)), shape('text', {x: 292, y: 104, 'text-anchor': 'end'}, 'now'));
  if (log && values.length) parts.push(shape('text', {x: 292, y: 89, 'text-anchor': 'end'}, form(low)));
  $(id).setAttribute('aria-label', values.length ? 'Up to ' + form(Math.max(...values)) + ', lately ' + form(values[values.length - 1]) : 'Nothing happened');
  $(id).replaceChildren(...parts);
}

let past = null;
function charts() {
  if (!past) return;
  const span = past[document.querySelector('input[name=span]:checked').value], rows = span.samples;
  const of = read => rows.map(row => [row[0], read(row)]).filter(point => point[1] !== null);
  chart('chart-rate', span, [{points: of(r => r[1] / span.sample_seconds), style: 'p50', area: true}], {form: v => count(v) + ' /s'});
  chart('chart-latency', span, [['p50', 4], ['p99', 5], ['p999', 6]].map(([style, at]) => ({points: of(r => r[1] ? r[at] : null), style})), {form: v => micros(Math.round(v)), log: true});
  chart('chart-hits', span, [{points: of(r => r[2] + r[3] ? r[2] / (r[2] + r[3]) : null), style: 'p50'}], {form: v => percent(v, 0), max: 1});
  chart('chart-memory', span, [{points: of(r => r[7]), style: 'p50', area: true}], {form: bytes});
}
document.querySelectorAll('input[name=span]').forEach(input => input.addEventListener('change', charts));

const kinds = [['Items up to 16 KiB', 'memory_pages_bytes', '--olive'], ['Larger items', 'memory_large_objects_bytes', '--olive-dark'], ['Index', 'memory_index_bytes', '--warn'], ['Timers', 'memory_timers_bytes', '--bad'], ['Eviction queues', 'memory_eviction_bytes', '--soft'], ['Own filter, changelog', 'memory_filter_bytes', '--violet'], ['Being freed', 'memory_freeing_bytes', '--line'], ['Filters of peers', 'peer_filters_bytes', '--blue'], ['Buffers', 'buffers_bytes', '--teal']];
function memory(s) {
  const all = {...s.figures.memory, ...s.figures.filter}, sum = kinds.reduce((sum, kind) => sum + all[kind[1]], 0);
  $('kinds-bar').replaceChildren(...kinds.map(([, name, color]) => tag('span', {style: `width:${100 * all[name] / Math.max(1, sum)}%;background:var(${color})`})));
  $('kinds').replaceChildren(...kinds.flatMap(([label, name, color]) => {
    const head = tag('dt');
    head.append(tag('span', {class: 'dot', style: `background:var(${color})`}), label);
    return [head, tag('dd', {}, bytes(all[name]))];
  }));
  const classes = s.classes, top = Math.max(1, ...classes.map(c => c[1])), width = 504 / Math.max(12, classes.length);
  $('classes').replaceChildren(...classes.flatMap(([size, held, live], at) => {
    const x = 8 + at * width, part = (style, n) => shape('rect', {class: style, x, y: 120 - 108 * n / top, width: Math.max(1, width - 2), height: 108 * n / top, rx: 2});
    const bar = part('held', held);
    bar.append(shape('title', {}, `slots of ${bytes(size)}: ${bytes(live)} of ${bytes(held)} in use`));
    const every = Math.ceil(classes.length / 12);
    return [bar, part('live', live), ...(at % every ? [] : [shape('text', {x, y: 134}, size < 1024 ? size : Math.round(size / 1024) + 'K')])];
  }));
  text('classes-note', classes.length ? 'Bytes of pages, and of them in slots in use, by bytes of a slot; the highest: ' + bytes(top) : 'No items.');
}

function table(id, columns, rows) {
  if (!rows.length) {
    const row = tag('tr');
    row.append(tag('td', {colspan: columns}, 'None.'));
    rows = [row];
  }
  if (getSelection().isCollapsed) $(id).replaceChildren(...rows);
}
function cells(first, ...others) {
  const row = tag('tr');
  row.append(tag('th', {scope: 'row'}, first), ...others.map(cell => Array.isArray(cell) ? tag('td', {class: 'number'}, cell[0]) : tag('td', {}, cell)));
  return row;
}
function slow(s) {
  table('slow', 6, s.slow.map(r => cells(r.command + (r.others ? ' and ' + r.others + ' more' : ''), span(r.age_ms), [micros(r.here_us)], [micros(r.peers_us)], [micros(r.output_us)], r.client)));
  table('clients', 6, s.clients.map(c => cells(c.address, c.name, c.protocol, [bytes(c.bytes_per_second) + '/s'], [bytes(c.unsent_bytes)], [span(c.connected_ms)])));
}

function mesh(s) {
  const narrow = $('mesh').clientWidth < 480, width = narrow ? 460 : 760;
  $('mesh').setAttribute('viewBox', `0 0 ${width} 470`);
  const two = s.peers.length === 2, own = [width / 2, two ? 330 : 235], peers = s.peers.slice(0, 160), big = peers.length <= 14;
  const linked = peers.filter(p => p.linked).length;
  const parts = [shape('desc', {id: 'mesh-text'}, 'This node and ' + peers.length + ' others, of which ' + linked + ' are linked. The table below has the same figures.')];
  const links = [], nodes = [];
  peers.forEach((p, i) => {
    const ring = big ? 1 : [1, .72, .86][i % 3];
    const angle = two ? Math.PI * (i ? -1 : -5) / 6 : -Math.PI / 2 + 2 * Math.PI * i / peers.length;
    const x = own[0] + (narrow ? 150 : 285) * ring * Math.cos(angle), y = own[1] + (two ? 440 : big ? 165 : 195) * ring * Math.sin(angle);
    const state = !p.linked ? 'away' : p.filter_known && !p.circuit_open ? '' : 'warn';
    const size = (big ? 13 : 6) + (p.claimed_keys ? Math.min(big ? 13 : 5, Math.log10(1 + p.claimed_keys) * (big ? 2.2 : 1)) : 0);
    if (p.linked) links.push(shape('line', {class: 'link ' + state, x1: own[0], y1: own[1], x2: x, y2: y}));
    const node = shape('circle', {class: 'node ' + state, cx: x, cy: y, r: size});
    node.append(shape('title', {}, p.address + (p.linked ? '' : ': not linked')));
    nodes.push(node);
    if (!big) return;
    // Away from the link.
    const first = y < own[1] ? y - size - 28 : y + size + 20;
    const at = (row, words, soft) => nodes.push(shape('text', {class: soft ? 'soft' : '', x, y: first + 17 * row}, words));
    at(0, p.address);
    if (!p.linked) { at(1, p.failures ? 'unreachable, tries: ' + p.failures : 'not linked', true); return; }
    at(1, p.claimed_keys === null ? 'filter unknown' : '≈ ' + count(p.claimed_keys) + ' keys' + (narrow || p.false_positives_measured === null ? '' : ' · ' + percent(p.false_positives_measured, 2) + ' false'), true);
    if (p.round_trip_us !== null) nodes.push(shape('text', {class: 'soft', x: own[0] + .55 * (x - own[0]), y: own[1] + .55 * (y - own[1]) + 4}, micros(p.round_trip_us)));
  });
  nodes.push(shape('circle', {class: 'own', cx: own[0], cy: own[1], r: 40}));
  nodes.push(shape('text', {class: 'own-text', x: own[0], y: own[1] + 1}, count(s.figures.keyspace.keys)));
  nodes.push(shape('text', {class: 'own-text', x: own[0], y: own[1] + 17, style: 'font-size:11px;font-weight:500'}, 'keys here'));
  if (!peers.length) nodes.push(shape('text', {class: 'soft', x: own[0], y: own[1] + 72}, 'This node knows no other. Start one with --peer ' + location.host));
  $('mesh').replaceChildren(...parts, ...links, ...nodes);
  text('mesh-title', peers.length ? 'Mesh: ' + linked + ' of ' + s.peers.length + ' other nodes linked' : 'Mesh');
}

function peers(s) {
  const rows = s.peers.map(p => {
    const row = tag('tr');
    row.append(tag('th', {scope: 'row'}, p.address));
    const [word, style] = !p.linked ? (p.failures ? ['unreachable', 'bad'] : ['not linked', 'warn']) : p.circuit_open ? ['does not answer', 'warn'] : ['linked', 'good'];
    row.append(tag('td', {class: style}, word));
    const cells = p.linked ? [known(p.round_trip_us, micros), p.filter_known ? 'known' : 'unknown', known(p.filter_age_ms, span), known(p.claimed_keys, count), known(p.fill, percent), known(p.false_positives_measured, v => percent(v, 3)), known(p.false_positives_predicted, v => percent(v, 3)), count(p.queries)] : ['', '', '', '', '', '', '', ''];
    cells.forEach((cell, i) => row.append(tag('td', {class: i === 1 ? '' : 'number'}, cell)));
    return row;
  });
  table('peers', 10, rows);
}

function draw(s) {
  const f = s.figures;
  const sample = {at: s.uptime_ms, requests: f.connections.requests, hits: f.keyspace.hits, misses: f.keyspace.misses, keys: f.keyspace.keys, p99: s.spans.minute.p99_us || 0};
  if (samples.length && samples[samples.length - 1].at > sample.at) samples.length = 0;
  samples.push(sample);
  if (samples.length > 121) samples.shift();
  text('where', location.host + ' · up ' + span(s.uptime_ms) + ' · version ' + f.server.version);
  text('state', s.notes.length ? s.notes.join('; ') : 'ready');
  $('state').className = 'state' + (s.notes.length ? ' warn' : '');
  document.title = 'Olivia ' + location.host;
  tiles(f);
  p99(s);
  mesh(s);
  spans(s);
  memory(s);
  slow(s);
  peers(s);
  const l = f.lookup;
  list('lookups', [['Keys looked up', count(l.lookups)], ['Found', count(l.lookup_hits)], ['Not found', count(l.lookup_misses)], ['Timed out', count(l.lookup_timeouts)], ['In flight', count(l.lookups_in_flight)], ['Queries', count(l.queries)], ['False positives', count(l.query_false_positives)]]);
  list('filters', [['Own filter', bytes(f.filter.filter_bits / 8)], ['Own fill', percent(f.filter.filter_fill)], ['Filters of peers', bytes(f.filter.peer_filters_bytes)], ['Sent', bytes(f.filter.digest_sent_bytes)], ['Received', bytes(f.filter.digest_received_bytes)]]);
  list('connections', [['Clients', count(f.connections.clients)], ['Accepted', count(f.connections.connections_accepted)], ['Buffers', bytes(f.memory.buffers_bytes)], ['Errors in requests', count(f.connections.request_errors)]]);
  if ($('all').open) {
    $('figures').replaceChildren(...Object.entries(f).map(([name, rows]) => {
      const part = tag('section'), all = tag('dl');
      all.append(...Object.entries(rows).flatMap(([key, value]) => [tag('dt', {}, key), tag('dd', {}, String(value))]));
      part.append(tag('h3', {}, name), all);
      return part;
    }));
  }
  $('live').hidden = false;
}

async function get(path) {
  const response = await fetch(path, {cache: 'no-store', signal: AbortSignal.timeout(3000)});
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

let polls = 0;
async function poll() {
  try {
    if (!document.hidden) {
      const status = await get('/status.json');
      if (polls++ % 10 === 0) {
        past = await get('/history.json');
        charts();
      }
      failures = 0;
      draw(status);
    }
  } catch (error) {
    failures++;
    text('state', error.name === 'Error' ? 'refused: ' + error.message : 'no answer from this node');
    $('state').className = 'state bad';
  }
  setTimeout(poll, failures > 5 ? 5000 : 1000);
}
poll();
