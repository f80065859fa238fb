// What the page does in the browser by itself.

// The language is the visitor's choice, or else the browser's. Gradio asks the browser.
const language = localStorage.getItem('shihua_language') ?? (/^zh/i.test(navigator.language) ? 'zh-CN' : 'en');
Object.defineProperty(navigator, 'language', { get: () => language });
document.documentElement.lang = language;
function useLanguage(chosen) {
  localStorage.setItem('shihua_language', chosen);
  location.reload();
}

// Gradio refuses files without a type, and browsers know none for the names that phones give: IMG_1.HEIC.
const typed = files => {
  const data = new DataTransfer();
  for (const file of files) {
    const photo = /\.(heic|heif|hif|avif|jp2)$/i.test(file.name);
    data.items.add(file.type || !photo ? file : new File([file], file.name, {type: 'image/heif'}));
  }
  return data.files;
};
addEventListener('change', event => {
  if (event.target.type === 'file') event.target.files = typed(event.target.files);
}, true);
addEventListener('drop', event => {
  const input = event.target.closest('.block')?.querySelector('input[type=file]');
  if (!input || [...event.dataTransfer.files].every(file => file.type)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  input.files = typed(event.dataTransfer.files);
  input.dispatchEvent(new Event('change'));
}, true);

// A job has begun: its button is busy, and its result comes into view; on a phone it stands below the fields.
function begin(button, result) {
  document.getElementById(button).setAttribute('aria-busy', 'true');
  look(result);
}
function look(result) {
  const box = document.getElementById(result).getBoundingClientRect();
  if (box.top < 0 || box.top > innerHeight / 2) {
    document.getElementById(result).scrollIntoView({ behavior: 'smooth', block: 'start' });
  }
}
function end(button, result) {
  document.getElementById(button).removeAttribute('aria-busy');
  setTimeout(() => { // when the page shows it
    const problem = [...document.querySelectorAll('.problem')].find(line => line.offsetParent);
    problem ? problem.scrollIntoView({ block: 'center' }) : look(result);
  }, 100);
}
// Presses a button, as soon as it is there: a tab is built when it is first shown.
function press(button) {
  const there = document.getElementById(button);
  there ? there.click() : setTimeout(press, 50, button);
}

// The poem on show: text, name (of a file), link.
const poem = () => document.querySelector('.scroll').dataset;

// The clipboard is there for pages of this machine and of https only.
function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.body.appendChild(document.createElement('textarea'));
  area.value = text;
  area.select();
  document.execCommand('copy');
  area.remove();
}
function saveFile(name, file) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
function saveText(name, text) {
  saveFile(name + '.txt', new Blob([text + '\n'], { type: 'text/plain' }));
}
function speak(text) {
  const utterance = Object.assign(new SpeechSynthesisUtterance(text), { lang: 'zh-CN', rate: 0.8 });
  speechSynthesis.cancel();
  speechSynthesis.speak(utterance);
}
if (!('speechSynthesis' in window)) document.documentElement.classList.add('mute');

// A tick on the button whose work is done.
function mark(button) {
  const classes = document.getElementById(button).classList;
  classes.add('done');
  setTimeout(() => classes.remove('done'), 2000);
}
function showMarks(name, on) {
  document.documentElement.classList.toggle('no-' + name, !on);
}
showMarks('pinyin', false);

// A link holds the request of a poem after its #. It is read once, so that a reload does not write it again.
let isLinked = false;
function linked(names, plain) {
  const asked = new URLSearchParams(location.hash.slice(1));
  isLinked = asked.has('form');
  if (!isLinked) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return names.map((name, i) => {
    const value = asked.get(name) ?? plain[i];
    return typeof plain[i] === 'number' ? Number(value) : value;
  });
}
function writeLinked() {
  if (isLinked) press('start-compose');
  isLinked = false;
}

// Moves the edge between photograph and painting.
function uncover(slider) {
  slider.parentElement.style.setProperty('--at', slider.value + '%');
}

// A picture in its own pixels, or as wide as there is room.
function fullSize(button) {
  const isFull = button.closest('.made').classList.toggle('full');
  button.setAttribute('aria-pressed', isFull);
}

// A picture that was made, as a file: the JPEG on show, its pixels as PNG, or a PDF around it.
async function savePicture(button) {
  const { zh, en, head, tail } = button.closest('.made').dataset;
  const image = [...button.closest('.made').querySelectorAll('img')].pop();
  const kind = button.dataset.kind;
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  let file = await (await fetch(image.src)).blob();
  if (kind === 'pdf') file = new Blob([bytes(head), file, bytes(tail)], { type: 'application/pdf' });
  if (kind === 'png') {
    const canvas = Object.assign(document.createElement('canvas'), { width: image.naturalWidth, height: image.naturalHeight });
    canvas.getContext('2d').drawImage(image, 0, 0);
    file = await new Promise(done => canvas.toBlob(done, 'image/png'));
  }
  saveFile(`${language === 'en' ? en : zh}.${kind}`, file);
}
