'use strict';
// Draws /status.json, each second. All text goes through textContent.
const $ = id => document.getElementById(id);
const samples = [];
let failures = 0;

const count = n => n < 100000 ? Math.round(n).toLocaleString('en') : new Intl.NumberFormat('en', {notation: 'compact', maximumSignificantDigits: 3}).format(n);
const percent = (share, digits = 1) => (100 * share).toFixed(digits) + ' %';
const known = (value, form) => value === null ? '–' : form(value);
const micros = us => us < 1000 ? us + ' µs' : (us / 1000).toFixed(us < 10000 ? 2 : 0) + ' ms';
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
    const cells = p.linked ? [known(p.round_trip_us, micros), p.filter_known ? 'known' : 'unknown', known(p.claimed_keys, count), known(p.fill, percent), known(p.false_positives_measured, v => percent(v, 3)), known(p.false_positives_predicted, v => percent(v, 3)), count(p.queries)] : ['', '', '', '', '', '', ''];
    cells.forEach((cell, i) => row.append(tag('td', {class: i === 1 ? '' : 'number'}, cell)));
    return row;
  });
  if (!rows.length) {
    const row = tag('tr');
    row.append(tag('td', {colspan: 9}, 'None.'));
    rows.push(row);
  }
  if (getSelection().isCollapsed) $('peers').replaceChildren(...rows);
}

function draw(s) {
  const f = s.figures;
  const sample = {at: s.uptime_ms, requests: f.connections.requests, hits: f.keyspace.hits, misses: f.keyspace.misses, keys: f.keyspace.keys};
  if (samples.length && samples[samples.length - 1].at > sample.at) samples.length = 0;
  samples.push(sample);
  if (samples.length > 121) samples.shift();
  text('where', location.host + ' · up ' + span(s.uptime_ms) + ' · version ' + f.server.version);
  text('state', s.notes.length ? s.notes.join('; ') : 'ready');
  $('state').className = 'state' + (s.notes.length ? ' warn' : '');
  document.title = 'Olivia ' + location.host;
  tiles(f);
  mesh(s);
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

async function poll() {
  try {
    if (!document.hidden) {
      const response = await fetch('/status.json', {cache: 'no-store', signal: AbortSignal.timeout(3000)});
      if (!response.ok) throw new Error(String(response.status));
      const status = await response.json();
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
